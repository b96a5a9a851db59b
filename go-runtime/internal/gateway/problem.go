package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// problem is why a stream was refused: problem details (RFC 9457) with a code
// for programs, as Django's API writes them.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	// Errors are the parts of the request that do not fit, each by itself.
	Errors []fieldProblem `json:"errors,omitempty"`
	// retryAfter, when set, is said in the header.
	retryAfter time.Duration
}

// fieldProblem is one query parameter, or header, at fault.
type fieldProblem struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func newProblem(status int, code, detail string) *problem {
	kind := "urn:agentruntime:problem:" + strings.ReplaceAll(strings.ToLower(code), "_", "-")
	return &problem{Type: kind, Title: http.StatusText(status), Status: status, Detail: detail, Code: code}
}

// doesNotFit is the problem of a request with parts at fault.
func doesNotFit(faults ...fieldProblem) *problem {
	p := newProblem(http.StatusBadRequest, "INVALID_ARGUMENT", "The request does not fit; see errors.")
	p.Errors = faults
	return p
}

// write answers with the problem. A client that went away is no one's concern.
func (p *problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, p.Title, p.Status)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(p.retryAfter/time.Second)))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
