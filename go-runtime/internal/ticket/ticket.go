package ticket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

var (
	// ErrInvalid reports a text that is no ticket of this runtime's: cut off,
	// altered, or signed with a key that is gone.
	ErrInvalid = errors.New("the ticket is not valid")
	// ErrExpired reports a ticket whose time is over.
	ErrExpired = errors.New("the ticket has expired")
)

// MaxLife is how far ahead a ticket may expire; a later time counts as that.
const MaxLife = 30 * 24 * time.Hour

// Ticket is what its holder may read.
type Ticket struct {
	Namespace string
	RunID     string
	// Principal is whom the reader counts as; empty: nobody in particular.
	Principal string
	// Least is the least visibility of what is shown.
	Least string
	// Expires is when the ticket is over, in whole seconds.
	Expires time.Time
}

// version begins every ticket; another one would be laid out differently.
const version = 1

// maxText bounds what is decoded at all.
const maxText = 4 << 10

// strict refuses the second spellings that base64 has for one text.
func strict() *base64.Encoding { return base64.RawURLEncoding.Strict() }

// encode returns the ticket's text, signed.
func (t Ticket) encode(k key) string {
	body := []byte{version}
	body = binary.AppendUvarint(body, k.ID)
	body = binary.AppendUvarint(body, uint64(t.Expires.Unix()))
	for _, part := range []string{t.Least, t.Namespace, t.RunID, t.Principal} {
		body = binary.AppendUvarint(body, uint64(len(part)))
		body = append(body, part...)
	}
	return strict().EncodeToString(append(body, k.sign(body)...))
}

// parsed is a ticket's text taken apart, its signature not looked at yet.
type parsed struct {
	ticket    Ticket
	keyID     uint64
	body      []byte
	signature []byte
}

// parse takes a ticket's text apart; false for what is none.
func parse(text string) (parsed, bool) {
	// The decoder of base64 steps over line breaks.
	if len(text) > maxText || strings.ContainsAny(text, "\r\n") {
		return parsed{}, false
	}
	data, err := strict().DecodeString(text)
	if err != nil || len(data) <= sha256.Size || data[0] != version {
		return parsed{}, false
	}
	end := len(data) - sha256.Size
	p := parsed{body: data[:end], signature: data[end:]}
	rest := fields{data: p.body[1:]}
	p.keyID = rest.number()
	p.ticket.Expires = time.Unix(int64(rest.number()), 0)
	for _, part := range []*string{&p.ticket.Least, &p.ticket.Namespace, &p.ticket.RunID, &p.ticket.Principal} {
		*part = rest.text()
	}
	return p, !rest.bad && len(rest.data) == 0
}

// fields reads what encode wrote; bad says that it could not.
type fields struct {
	data []byte
	bad  bool
}

func (f *fields) number() uint64 {
	n, size := binary.Uvarint(f.data)
	if size <= 0 {
		f.bad, f.data = true, nil
		return 0
	}
	f.data = f.data[size:]
	return n
}

func (f *fields) text() string {
	size := f.number()
	if size > uint64(len(f.data)) {
		f.bad, f.data = true, nil
		return ""
	}
	text := string(f.data[:size])
	f.data = f.data[size:]
	return text
}

func (k key) sign(body []byte) []byte {
	mac := hmac.New(sha256.New, k.Bytes)
	mac.Write(body)
	return mac.Sum(nil)
}
