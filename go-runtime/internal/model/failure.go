package model

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"time"
)

// errStream marks what the stream of an answer failed with.
var errStream = errors.New("read the answer as it comes")

// report is what a provider says of a failure in its own form.
type report struct {
	// kind is empty where the status says as much.
	kind Kind
	// code is the provider's word for it.
	code       string
	retryAfter time.Duration
}

// failure makes an *Error of what an SDK failed with. It has no Model yet.
func failure(a *answered, err error, said report) *Error {
	f := &Error{Kind: said.kind, StatusCode: a.status, Cause: cause(err, said.code)}
	if a.status == 0 {
		f.Kind = Unavailable
		return f
	}
	f.RetryAfter = max(a.retryAfter(), said.retryAfter)
	switch {
	case f.Kind != "":
	case a.status < http.StatusMultipleChoices && errors.Is(err, errStream) && a.streams():
		f.Kind = Unavailable
	default:
		f.Kind = kindOf(a.status)
	}
	return f
}

func kindOf(status int) Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return Unauthorized
	case http.StatusTooManyRequests:
		return RateLimited
	case http.StatusPaymentRequired:
		return QuotaExhausted
	case http.StatusRequestTimeout, http.StatusConflict:
		return Unavailable
	case http.StatusNotImplemented:
		return Rejected
	}
	switch {
	case status >= http.StatusInternalServerError:
		return Unavailable
	case status >= http.StatusBadRequest:
		return Rejected
	}
	return Malformed
}

// word is what is repeated of a provider's own code: one that holds more is no code.
var word = regexp.MustCompile(`^[a-zA-Z_]{1,64}$`)

// cause is what may be said of an SDK's error in a log. Most of their texts quote
// the answer, which may quote the request and the key.
func cause(err error, code string) error {
	if word.MatchString(code) {
		return fmt.Errorf("the endpoint reported %s", code)
	}
	if err == nil {
		return nil
	}
	if network, found := errors.AsType[*net.OpError](err); found {
		return network
	}
	if certificate, found := errors.AsType[*tls.CertificateVerificationError](err); found {
		return certificate
	}
	if syntax, found := errors.AsType[*json.SyntaxError](err); found {
		return fmt.Errorf("the answer is not JSON at byte %d", syntax.Offset)
	}
	for _, known := range []error{io.ErrUnexpectedEOF, io.EOF, errMisread, errStream} {
		if errors.Is(err, known) {
			return known
		}
	}
	return fmt.Errorf("the SDK failed with %T", err)
}
