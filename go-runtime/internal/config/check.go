package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/djangobridge/djangobridge/go-runtime/internal/mcp"
	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

// messageOverhead is what a message may hold beside its largest value: keys, ids, metadata.
const messageOverhead = 64 << 10

// contradictions returns the mistakes that lie between settings.
func (c Config) contradictions() []Mistake {
	var found []Mistake
	mistake := func(setting, shown, problem string) {
		found = append(found, Mistake{setting, shown, c.origins[setting], problem})
	}
	if c.Listen == "" && c.Socket == "" {
		mistake("listen", off, "listen and socket are both off: nobody could call")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		mistake("tls-cert", c.TLSCert, "tls-cert and tls-key go together")
	}
	if c.ClientCA != "" && c.TLSCert == "" {
		mistake("client-ca", c.ClientCA, "client certificates need tls-cert and tls-key")
	}
	guarded := c.TLSCert != "" && c.TLSKey != "" && (c.TokensFile != "" || c.ClientCA != "")
	for _, address := range []struct{ setting, value string }{{"listen", c.Listen}, {"http", c.HTTP}} {
		if address.value != "" && !loopback(address.value) && !guarded {
			mistake(address.setting, address.value, "an address that others can reach needs tls-cert, tls-key "+
				"and either tokens-file or client-ca; or use a loopback address")
		}
	}
	if c.Replicas%2 == 0 {
		mistake("replicas", strconv.Itoa(c.Replicas), "want 1, 3 or 5: an even number survives no more failures")
	}
	if c.OpenAIBaseURL != "" && len(c.Models) == 0 {
		mistake("model", "", "openai-base-url needs the name of a model")
	}
	if c.NATSURL != "" && c.Replicas == 1 && c.Durability == "fsync" {
		mistake("replicas", "1", "one replica of a cluster does not keep what it accepted: use 3, or durability os")
	}
	if c.MaxMessageBytes < c.MaxValueBytes+messageOverhead {
		mistake("max-message-bytes", sizeText(int64(c.MaxMessageBytes)),
			fmt.Sprintf("a message must hold the largest value (max-value-bytes %s) and 64KiB more", sizeText(int64(c.MaxValueBytes))))
	}
	return found
}

// loopback reports whether only this machine reaches address, a host:port.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// HTTPExposed reports whether other machines reach the HTTP address, which is then served over TLS.
func (c Config) HTTPExposed() bool { return c.HTTP != "" && !loopback(c.HTTP) }

// TLS returns the server's TLS settings, or nil when none are configured.
func (c Config) TLS() (*tls.Config, error) {
	if c.TLSCert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", c.TLSCert, c.TLSKey, err)
	}
	settings := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.ClientCA == "" {
		return settings, nil
	}
	authorities, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read client authorities: %w", err)
	}
	settings.ClientCAs = x509.NewCertPool()
	if !settings.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("read client authorities: %s holds no certificate in PEM", c.ClientCA)
	}
	settings.ClientAuth = tls.RequireAndVerifyClientCert
	return settings, nil
}

// badFiles looks at everything on the disk that the configuration names:
// certificates pair, the files of tokens and of MCP servers parse, folders can be
// written. It leaves nothing behind.
func (c Config) badFiles(getenv func(string) string) []Mistake {
	var found []Mistake
	mistake := func(setting, shown string, err error) {
		if err != nil {
			found = append(found, Mistake{setting, shown, c.origins[setting], err.Error()})
		}
	}
	if c.TLSKey != "" {
		_, err := c.TLS()
		mistake("tls-cert", c.TLSCert, err)
	}
	if c.TokensFile != "" {
		_, err := token.Load(c.TokensFile)
		mistake("tokens-file", c.TokensFile, err)
	}
	if c.MCPServers != "" {
		_, err := mcp.Load(c.MCPServers, getenv)
		mistake("mcp-servers", c.MCPServers, err)
	}
	if c.NATSURL == "" {
		mistake("data-dir", c.DataDir, checkWritable(c.DataDir))
	}
	if c.Socket != "" {
		mistake("socket", c.Socket, checkWritable(filepath.Dir(c.Socket)))
	}
	return found
}

// checkWritable reports why files could not be made in folder, or in the
// nearest folder above it that exists.
func checkWritable(folder string) error {
	if folder == "" {
		return errors.New("want a folder")
	}
	info, err := os.Stat(folder)
	if errors.Is(err, os.ErrNotExist) && filepath.Dir(folder) != folder {
		return checkWritable(filepath.Dir(folder))
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", folder)
	}
	probe, err := os.CreateTemp(folder, ".agent-runtime-check-*")
	if pathErr, found := errors.AsType[*os.PathError](err); found {
		err = pathErr.Err // its path is the probe's
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", folder, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}
