package mcp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
)

// serveHTTP starts a full server behind HTTP that wants a header.
func serveHTTP(t *testing.T, options *sdk.StreamableHTTPOptions) (*httptest.Server, *atomic.Pointer[http.Handler]) {
	t.Helper()
	var handler atomic.Pointer[http.Handler]
	renew(t, &handler, options)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		(*handler.Load()).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server, &handler
}

// renew puts a server in the place of the one before, as a restart does.
func renew(t *testing.T, handler *atomic.Pointer[http.Handler], options *sdk.StreamableHTTPOptions) {
	t.Helper()
	full := newFullServer()
	t.Cleanup(func() {
		for session := range full.Sessions() {
			_ = session.Close()
		}
	})
	var next http.Handler = sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return full }, options)
	handler.Store(&next)
}

func behind(server *httptest.Server) map[string]ServerConfig {
	return map[string]ServerConfig{"full": {URL: server.URL, Headers: map[string]string{"Authorization": "Bearer token"}}}
}

func TestToolsBehindHTTP(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]*sdk.StreamableHTTPOptions{
		"with sessions": {}, "stateless": {Stateless: true, PropagateRequestCancellation: true}, "as JSON": {Stateless: true, JSONResponse: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := serveHTTP(t, options)
			s := start(t, behind(server))
			checkFull(t, offered(t, s, "full"))
			if !options.JSONResponse {
				checkCancelled(t, offered(t, s, "full")["full__wait"])
			}
		})
	}
}

func TestChangedListsAreFollowedBehindHTTP(t *testing.T) {
	t.Parallel()
	server, _ := serveHTTP(t, nil)
	checkChanges(t, start(t, behind(server)))
}

func TestASessionThatTheServerForgotIsMadeAnew(t *testing.T) {
	t.Parallel()
	server, handler := serveHTTP(t, nil)
	s := start(t, behind(server))
	echo := offered(t, s, "full")["full__echo"]
	renew(t, handler, nil)
	if result, err := call(t.Context(), t, echo, `{"text": "again"}`); err != nil || result.Text != "again" {
		t.Errorf("after the server's restart: %+v, %v", result, err)
	}
}

func TestHTTPServersThatMisbehave(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other server was asked, with %v", r.Header)
	}))
	t.Cleanup(elsewhere.Close)
	tests := map[string]http.HandlerFunc{
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "Welcome!")
		},
		"flood": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 64 {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<20)); err != nil {
					return
				}
			}
		},
		"flood of an event": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for range 64 {
				if _, err := io.WriteString(w, "data: "+strings.Repeat(" ", 1<<20)+"\n"); err != nil {
					return
				}
			}
		},
	}
	for name, handle := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(handle)
			t.Cleanup(server.Close)
			_, err := start(t, behind(server)).Tools(t.Context(), "full")
			if err == nil || strings.Contains(err.Error(), "Bearer") {
				t.Errorf("Tools fails with %v", err)
			}
		})
	}
}

func TestAnHTTPServerThatIsGoneFailsItsCalls(t *testing.T) {
	t.Parallel()
	server, handler := serveHTTP(t, &sdk.StreamableHTTPOptions{Stateless: true})
	s := start(t, behind(server))
	echo := offered(t, s, "full")["full__echo"]
	var down http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	handler.Store(&down)
	_, err := call(t.Context(), t, echo, `{}`)
	var failure *tool.Error
	if !errors.As(err, &failure) || failure.Reason != tool.Broken {
		t.Errorf("the call fails with %v", err)
	}
	renew(t, handler, &sdk.StreamableHTTPOptions{Stateless: true})
	if result, err := call(t.Context(), t, echo, fmt.Sprintf(`{"text": %d}`, 7)); err != nil || result.Text != "7" {
		t.Errorf("once it is back: %+v, %v", result, err)
	}
}
