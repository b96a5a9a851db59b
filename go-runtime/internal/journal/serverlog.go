package journal

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
)

// isWriteFault reports whether the embedded server takes no more writes until
// it is restarted. It says so in its log only: to the writer it gives no
// answer.
func isWriteFault(text string) bool {
	for _, fault := range []string{
		"Critical write error",
		"failed to store a msg",
		syscall.ENOSPC.Error(),
		syscall.EIO.Error(),
		syscall.EROFS.Error(),
	} {
		if strings.Contains(text, fault) {
			return true
		}
	}
	return false
}

// serverLog hands the embedded server's log lines to slog, and watches them
// for write errors.
type serverLog struct {
	log  *slog.Logger
	fail func(error)
}

func (l *serverLog) line(level slog.Level, format string, args []any) {
	if !l.log.Enabled(context.Background(), level) && level < slog.LevelWarn {
		return
	}
	text := fmt.Sprintf(format, args...)
	l.log.Log(context.Background(), level, "nats server", "text", text)
	if level >= slog.LevelWarn && isWriteFault(text) {
		l.fail(fmt.Errorf("the store cannot be written: %s", text))
	}
}

func (l *serverLog) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *serverLog) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *serverLog) Errorf(format string, args ...any)  { l.line(slog.LevelError, format, args) }
func (l *serverLog) Fatalf(format string, args ...any)  { l.line(slog.LevelError, format, args) }
func (l *serverLog) Debugf(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
func (l *serverLog) Tracef(format string, args ...any)  { l.line(slog.LevelDebug, format, args) }
