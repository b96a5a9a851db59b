package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// problem is why a stream was refused: problem details (RFC 9457) with a code
// for programs.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	// retryAfter, when set, is said in the header.
	retryAfter time.Duration
}

func newProblem(status int, code, title, detail string) *problem {
	return &problem{Type: "about:blank", Title: title, Status: status, Detail: detail, Code: code}
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
