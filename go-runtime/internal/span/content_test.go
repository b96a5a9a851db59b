package span

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRedactor(t *testing.T) {
	t.Parallel()
	r := newRedactor([]string{"password", "*_key", "Authorization"})
	for name, tc := range map[string]struct{ given, want string }{
		"by name":            {`{"password":"hunter2","name":"ada"}`, `{"name":"ada","password":"[redacted]"}`},
		"in any case":        {`{"Password":1,"AUTHORIZATION":["x"]}`, `{"AUTHORIZATION":"[redacted]","Password":"[redacted]"}`},
		"by pattern":         {`{"api_key":{"deep":1},"key":"stays","a/b_key":2}`, `{"a/b_key":"[redacted]","api_key":"[redacted]","key":"stays"}`},
		"nested":             {`[{"a":[{"password":null}]}]`, `[{"a":[{"password":"[redacted]"}]}]`},
		"in a text":          {`{"arguments":"{\"password\": \"x\", \"n\": 1}"}`, `{"arguments":"{\"n\":1,\"password\":\"[redacted]\"}"}`},
		"in texts in texts":  {`["[\"{\\\"password\\\":1}\"]"]`, `["[\"{\\\"password\\\":\\\"[redacted]\\\"}\"]"]`},
		"no JSON in a text":  {`["{password: x}","[1] [2]"]`, `["{password: x}","[1] [2]"]`},
		"numbers as written": {`{"n":9223372036854775807,"f":1.10}`, `{"f":1.10,"n":9223372036854775807}`},
		"no HTML escapes":    {`"<&>"`, `"<&>"`},
		"no JSON":            {`{`, ``},
		"nothing":            {``, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := r.text(json.RawMessage(tc.given)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestContentIsBounded(t *testing.T) {
	t.Parallel()
	r := newRedactor(nil)
	many := make([]string, 10_000)
	for i := range many {
		many[i] = strings.Repeat("é", 20)
	}
	for name, tc := range map[string]struct {
		value any
		says  string
	}{
		"a long text":     {strings.Repeat("é", 1<<20), "… [2097152 bytes]"},
		"long texts":      {[]string{strings.Repeat("x", 1<<16), strings.Repeat("y", 1<<16), strings.Repeat("z", 1<<16), strings.Repeat("0", 1<<16), strings.Repeat("1", 1<<16)}, "… [65536 bytes]"},
		"too many things": {many, "more than the limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := r.text(tc.value)
			if len(text) > maxContentBytes || !json.Valid([]byte(text)) || !strings.Contains(text, tc.says) {
				t.Errorf("%d bytes: %.100s", len(text), text)
			}
		})
	}
}

// FuzzRedactor has no value of a masked member get through, however it is written.
func FuzzRedactor(f *testing.F) {
	for _, seed := range []string{`{"a":{"secret":"S3CRET"}}`, `["{\"secret\":\"S3CRET\"}"]`, `{"SECRET":["S3CRET"]}`, `"x"`, `{"a":1e400}`} {
		f.Add([]byte(seed))
	}
	r := newRedactor([]string{"secret"})
	f.Fuzz(func(t *testing.T, data []byte) {
		text := r.text(json.RawMessage(data))
		if text == "" {
			return
		}
		if !json.Valid([]byte(text)) || !utf8.ValidString(text) || len(text) > maxContentBytes {
			t.Fatalf("%q became %q", data, text)
		}
		var members map[string]any
		if json.Unmarshal([]byte(text), &members) != nil {
			return
		}
		for name, value := range members {
			if strings.EqualFold(name, "secret") && value != mask {
				t.Errorf("%q became %q", data, text)
			}
		}
	})
}

func TestWishes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ metadata, asked, project, conversation, tags string }{
		"none":           {``, "", "", "", ""},
		"asked":          {`{"trace":true,"project":"p","conversation_id":"c","tags":["a","b"]}`, "yes", "p", "c", "a b"},
		"refused":        {`{"trace":false,"project":"p"}`, "no", "", "", ""},
		"project alone":  {`{"project":"a project of the user's own"}`, "", "", "", ""},
		"of other types": {`{"trace":"yes","project":1,"conversation_id":2,"tags":"a"}`, "", "", "", ""},
		"null":           {`{"trace":null}`, "", "", "", ""},
		"odd tags":       {`{"tags":["","a,b","ok"]}`, "", "", "", "ok"},
		"a long project": {`{"trace":true,"project":"` + strings.Repeat("x", 1000) + `"}`, "yes", "", "", ""},
		"no object":      {`[`, "", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := wishesOf([]byte(tc.metadata))
			asked := ""
			if got.trace != nil {
				asked = map[bool]string{true: "yes", false: "no"}[*got.trace]
			}
			if asked != tc.asked || got.project != tc.project || got.conversation != tc.conversation || strings.Join(got.tags, " ") != tc.tags {
				t.Errorf("%+v (%s)", got, asked)
			}
		})
	}
}

func TestTraceIDOfAnOrigin(t *testing.T) {
	t.Parallel()
	const id = "0af7651916cd43dd8448eb211c80319c"
	for parent, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01": id,
		"00-" + id + "-b7ad6b7169203331-03": id,
		"00-" + id + "-b7ad6b7169203331-00": "",
		"00-" + id + "-b7ad6b7169203331-02": "",
		"":                                  "",
		"nonsense":                          "",
		"00-" + id:                          "",
	} {
		if got := (&Origin{TraceParent: parent}).TraceID(); got != want {
			t.Errorf("%q: %q", parent, got)
		}
	}
}
