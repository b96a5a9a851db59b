package token_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/djangobridge/djangobridge/go-runtime/internal/token"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSetFindsTokensBySecretAndName(t *testing.T) {
	t.Parallel()
	web, job := token.NewSecret(), token.NewSecret()
	if web == job || len(web) < 40 {
		t.Fatalf("secrets %q and %q", web, job)
	}
	set, err := token.Load(write(t, `tokens:
  - {name: web, hash: `+token.Hash(web)+`, namespaces: [default, shop], access: write}
  - {name: job, hash: `+token.Hash(job)+`, namespaces: ["*"], access: read}
  - {name: cert, namespaces: [default], access: read}
`))
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]string{web: "web", job: "job"} {
		if got := set.BySecret(secret); got == nil || got.Name() != want {
			t.Errorf("token of %s = %v", want, got)
		}
	}
	for _, secret := range []string{"", web[1:], web + "x", token.Hash(web)} {
		if got := set.BySecret(secret); got != nil {
			t.Errorf("%q opens %s", secret, got.Name())
		}
	}
	if set.ByName("cert") == nil || set.ByName("nobody") != nil || set.ByName("") != nil {
		t.Error("names are not found as they should be")
	}
	for _, test := range []struct {
		name, namespace string
		access          token.Access
		want            bool
	}{
		{"web", "shop", token.Write, true},
		{"web", "shop", token.Read, true},
		{"web", "other", token.Read, false},
		{"web", "*", token.Read, false},
		{"job", "other", token.Read, true},
		{"job", "other", token.Write, false},
	} {
		if got := set.ByName(test.name).Allows(test.namespace, test.access); got != test.want {
			t.Errorf("%s may %s in %s: %t, want %t", test.name, test.access, test.namespace, got, test.want)
		}
	}
}

func TestTakeKeepsToTheRate(t *testing.T) {
	t.Parallel()
	set, err := token.Load(write(t, `tokens:
  - {name: limited, namespaces: [default], access: read, rate: 2, burst: 3}
  - {name: rate-alone, namespaces: [default], access: read, rate: 0.5}
  - {name: free, namespaces: [default], access: read}
`))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	limited := set.ByName("limited")
	for i := range 3 {
		if wait := limited.Take(now); wait != 0 {
			t.Errorf("call %d of the burst waits %s", i, wait)
		}
	}
	for range 2 {
		// A refused call costs nothing: the wait does not grow.
		if wait := limited.Take(now); wait != 500*time.Millisecond {
			t.Errorf("wait = %s, want half a second", wait)
		}
	}
	if wait := limited.Take(now.Add(500 * time.Millisecond)); wait != 0 {
		t.Errorf("after the wait: %s", wait)
	}
	alone := set.ByName("rate-alone")
	if first, second := alone.Take(now), alone.Take(now); first != 0 || second != 2*time.Second {
		t.Errorf("waits = %s, %s", first, second)
	}
	for range 10_000 {
		if wait := set.ByName("free").Take(now); wait != 0 {
			t.Fatalf("a token without a rate waits %s", wait)
		}
	}
}

func TestEveryMistakeOfTheFileIsSaid(t *testing.T) {
	t.Parallel()
	hash := token.Hash("s")
	_, err := token.Load(write(t, `tokens:
  - {name: "bad name", hash: xyz, namespaces: [], access: admin, rate: -1, burst: 2}
  - {name: twin, hash: `+hash+`, namespaces: [UPPER], access: read}
  - {name: twin, hash: `+hash+`, namespaces: [default], access: read, burst: 1}
`))
	if err == nil {
		t.Fatal("a file full of mistakes was taken")
	}
	for _, part := range []string{
		"name: want", "hash: want", "namespaces: want", `"admin"`, "rate and burst", `"UPPER"`, `"twin" is taken`, "another token has its hash", "burst: needs a rate",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %s:\n%v", part, err)
		}
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":         "",
		"no tokens":     "tokens: []",
		"unknown field": "tokens: [{name: a, secret: s}]",
		"no YAML":       "\t{",
		"rate of NaN":   "tokens: [{name: a, namespaces: [default], access: read, rate: .nan}]",
		"rate of Inf":   "tokens: [{name: a, namespaces: [default], access: read, rate: .inf}]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := token.Load(write(t, text)); err == nil {
				t.Error("it was taken")
			}
		})
	}
	if _, err := token.Load(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a file that is not there was taken")
	}
}

func TestValidNamespace(t *testing.T) {
	t.Parallel()
	for namespace, want := range map[string]bool{
		"default": true, "a-1": true, "-": true, strings.Repeat("n", 63): true,
		"": false, "A": false, "a.b": false, "a b": false, "é": false, strings.Repeat("n", 64): false, "*": false,
	} {
		if got := token.ValidNamespace(namespace); got != want {
			t.Errorf("ValidNamespace(%q) = %t", namespace, got)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("tokens: [{name: a, namespaces: [default], access: read}]")
	f.Add("tokens: [{name: a, hash: 00, namespaces: ['*'], access: write, rate: .nan}]")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := token.Load(write(t, text))
		if err != nil {
			return
		}
		if found := set.BySecret("guess"); found != nil {
			t.Errorf("%q lets anybody in as %s", text, found.Name())
		}
	})
}

func TestMistakesAreToldInTheWordsOfTheFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"tokens: 5":                             "line 1: cannot read !!int `5` as a list of tokens",
		"tokens: [5]":                           "line 1: cannot read !!int `5` as a token",
		"tokens:\n - name: {}":                  "line 2: cannot read !!map as a text",
		"tokens:\n - {name: a, rate: b}":        "line 2: cannot read !!str `b` as a number",
		"tokens:\n - {name: a, burst: b}":       "line 2: cannot read !!str `b` as a whole number",
		"tokens:\n - {name: a, namespaces: {}}": "line 2: cannot read !!map as a list of texts",
		"tokens:\n - {name: a, secret: b}":      "line 2: field secret is none of a token's",
		"token: []":                             "line 1: field token is not known: there is only tokens",
	} {
		_, err := token.Load(write(t, text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "token.Entry") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
