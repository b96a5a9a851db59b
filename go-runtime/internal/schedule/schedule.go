package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/robfig/cron/v3"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Schedule creates a run at each time of a cron expression.
type Schedule struct {
	// ID is unique in its namespace: 1 to 200 bytes.
	ID        string `json:"-"`
	Namespace string `json:"-"`
	// Cron has five fields (minute hour day month weekday), or is one of @hourly,
	// @daily, @weekly, @monthly, @yearly or "@every 90s". The weekdays 0 and 7 are Sunday.
	Cron string `json:"cron"`
	// TimeZone is an IANA name; empty: UTC.
	TimeZone string `json:"time_zone,omitempty"`
	// Run is what each run is; its ids, times and Wait are not set.
	Run    engine.CreateRequest `json:"run"`
	Paused bool                 `json:"paused,omitempty"`

	CreatedAt time.Time `json:"created_at"`
	// ResumedAt is since when times count.
	ResumedAt time.Time `json:"resumed_at"`
	// LastTime is the latest time that had its run, LastRunID that run; zero: none.
	LastTime  time.Time `json:"last_time,omitzero"`
	LastRunID string    `json:"last_run_id,omitempty"`
	// LastError says why the latest time has no run; empty when it has one.
	LastError string `json:"last_error,omitempty"`
	// NextTime is when the next run is created; zero while paused.
	NextTime time.Time `json:"-"`

	// Deleted marks the record of a schedule that is no more.
	Deleted bool `json:"deleted,omitempty"`
}

// NotFoundError is returned when the namespace has no such schedule.
type NotFoundError struct{ ID string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("there is no schedule %q", e.ID) }

// ExistsError is returned by Create for an id that is taken.
type ExistsError struct{ ID string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("there is a schedule %q already; ask to replace it", e.ID)
}

const maxIDBytes = 200

// timetable says when a schedule's times are.
type timetable struct {
	cron cron.Schedule
	zone *time.Location
}

// next returns the first time after another. A time of day that comes twice, as the
// clock is put back, counts once; every hour counts all the same.
func (t timetable) next(after time.Time) time.Time {
	next := t.cron.Next(after.In(t.zone))
	for !t.isHourly() && cameBefore(next) {
		next = t.cron.Next(next)
	}
	return next.UTC()
}

// isHourly reports whether the expression names no hours, but each, or intervals.
func (t timetable) isHourly() bool {
	fields, ok := t.cron.(*cron.SpecSchedule)
	return !ok || fields.Hour&everyHour == everyHour
}

// everyHour is the hours 0 to 23 as the bits of a cron.SpecSchedule.
const everyHour = 1<<24 - 1

// cameBefore reports whether the clock showed the same before it was put back.
func cameBefore(t time.Time) bool {
	if t.IsZero() {
		return false
	}
	_, offset := t.Zone()
	_, before := t.Add(-mostPutBack).Zone()
	if before <= offset {
		return false
	}
	earlier := t.Add(-time.Duration(before-offset) * time.Second)
	return earlier.Format(time.DateTime) == t.Format(time.DateTime)
}

// mostPutBack is at least as much as any clock is put back by, and less than any two of that lie apart.
const mostPutBack = 3 * time.Hour

// parse reads a schedule's cron expression and time zone.
func parse(s *Schedule) (timetable, error) {
	var errCron, errZone error
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil || s.TimeZone == "Local" {
		errZone = violation.New("schedule.time_zone", "%q is no name of a time zone, such as Europe/Berlin", s.TimeZone)
	}
	if strings.Contains(s.Cron, "TZ=") {
		return timetable{}, violation.New("schedule.cron", "must not name a time zone: time_zone does")
	}
	table, err := cron.ParseStandard(sundayAsZero(s.Cron))
	switch {
	case s.Cron == "":
		errCron = violation.New("schedule.cron", "is required")
	case err != nil:
		// Of what is no number the parser adds how Go says that.
		reason, _, _ := strings.Cut(err.Error(), ": strconv.")
		errCron = violation.New("schedule.cron", "%s: %s", whatCronIs, reason)
	case errZone == nil && table.Next(time.Now().In(zone)).IsZero():
		errCron = violation.New("schedule.cron", "%q never comes", s.Cron)
	}
	return timetable{table, zone}, violation.Join(errCron, errZone)
}

const whatCronIs = "must be five fields, minute hour day month weekday, of numbers, names (jan, mon), *, " +
	"ranges (1-5), lists (1,15) and steps (*/10), or @hourly, @daily, @weekly, @monthly, @yearly, " +
	"or an interval such as @every 90s"

// sundayAsZero writes a 7 among the weekdays as the parser knows Sunday, which is 0 to it alone.
func sundayAsZero(expression string) string {
	fields := strings.Fields(expression)
	if len(fields) != 5 {
		return expression
	}
	terms := strings.Split(fields[4], ",")
	for i, term := range terms {
		days, step, stepped := strings.Cut(term, "/")
		if !stepped {
			step = "1"
		}
		first, last, ranged := strings.Cut(days, "-")
		if !ranged {
			last = first
		}
		from, errFrom := weekday(first)
		every, errEvery := strconv.Atoi(step)
		if last != "7" || errFrom != nil || from > 7 || errEvery != nil || every < 1 {
			continue // the parser takes it, or says what is wrong
		}
		var numbers []string
		for day := from; day <= 7; day += min(every, 7) {
			numbers = append(numbers, strconv.Itoa(day%7))
		}
		terms[i] = strings.Join(numbers, ",")
	}
	fields[4] = strings.Join(terms, ",")
	return strings.Join(fields, " ")
}

// weekday reads a number, or the name of a day such as mon.
func weekday(text string) (int, error) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if strings.EqualFold(text, day.String()[:3]) {
			return int(day), nil
		}
	}
	return strconv.Atoi(text)
}

// check refuses a schedule that does not fit.
func (s *Schedule) check() (timetable, error) {
	var errID, errRun, errEvery error
	switch {
	case s.ID == "":
		errID = violation.New("schedule.schedule_id", "is required")
	case len(s.ID) > maxIDBytes:
		errID = violation.New("schedule.schedule_id", "must be at most %d bytes, is %d", maxIDBytes, len(s.ID))
	case !utf8.ValidString(s.ID):
		errID = violation.New("schedule.schedule_id", "must be UTF-8")
	}
	r := &s.Run
	if r.RunID != "" || r.IdempotencyKey != "" || r.RequestID != "" || r.Wait || r.Delay != 0 || !r.RunAt.IsZero() {
		errRun = violation.New("schedule.run", "must not set run_id, idempotency_key, request_id, wait, delay or run_at")
	}
	table, errTimes := parse(s)
	if interval, found := strings.CutPrefix(s.Cron, "@every "); found {
		// The parser makes less a second, and a schedule that is kept goes on with that.
		if every, err := time.ParseDuration(interval); err == nil && every < time.Second {
			errEvery = violation.New("schedule.cron", "must be at least @every 1s")
		}
	}
	return table, violation.Join(errID, errTimes, errEvery, errRun)
}

// runIDSpace is the UUIDv5 namespace of the ids of scheduled runs.
//
//nolint:gochecknoglobals // a constant, were UUIDs one
var runIDSpace = uuid.MustParse("0a4c3a0d-3c1b-5b0e-9a58-6a3f1f0f7d21")

// runID names the run of a time, or of a request to run now.
func (s *Schedule) runID(what string) string {
	return uuid.NewSHA1(runIDSpace, []byte(s.Namespace+"\x00"+s.ID+"\x00"+what)).String()
}

// request is that of a run.
func (s *Schedule) request(runID string) engine.CreateRequest {
	r := s.Run
	r.RunID = runID
	r.Options.ScheduleID = s.ID
	return r
}

// refused reports whether an error is about the run, so that trying again would not help.
func refused(err error) bool {
	return errors.As(err, new(*violation.Error)) || errors.As(err, new(*violation.TooLargeError)) ||
		errors.As(err, new(*engine.ConflictError)) || errors.As(err, new(*engine.ConcurrencyLimitError))
}
