package tool

import (
	"net/netip"
	"net/url"
	"testing"
)

func TestAddressesThatToolsMayConnectTo(t *testing.T) {
	t.Parallel()
	// Whether an address is reached without a list, and with one that does not name it.
	tests := map[string]struct{ unlisted, listed bool }{
		"93.184.216.34":             {true, true},
		"2606:2800:220:1::1":        {true, true},
		"127.0.0.1":                 {false, true},
		"::1":                       {false, true},
		"10.1.2.3":                  {false, true},
		"172.16.0.1":                {false, true},
		"192.168.1.1":               {false, true},
		"100.64.0.1":                {false, true},
		"0.0.0.0":                   {false, true},
		"::":                        {false, true},
		"224.0.0.1":                 {false, true},
		"255.255.255.255":           {false, true},
		"fc00::1":                   {false, true},
		"::ffff:10.0.0.1":           {false, true},
		"64:ff9b::808:808":          {false, true},
		"169.254.169.254":           {false, false},
		"::ffff:169.254.169.254":    {false, false},
		"64:ff9b::a9fe:a9fe":        {false, false},
		"fe80::1":                   {false, false},
		"fd00:ec2::254":             {false, false},
		"100.100.100.200":           {false, false},
		"192.0.0.192":               {false, false},
		"168.63.129.16":             {false, false},
		"2002:a9fe:a9fe::1":         {false, true},
		"::ffff:0:169.254.169.254":  {true, true}, // an unassigned prefix, reached by nobody
		"2001:0:4136:e378:8000::1":  {false, true},
		"fec0::1":                   {false, true},
		"64:ff9b:1::a9fe:a9fe":      {false, true},
		"100:0:0:0:1::":             {false, true},
		"192.0.0.8":                 {false, true},
		"198.18.0.1":                {false, true},
		"240.0.0.1":                 {false, true},
		"fe80::a9fe:a9fe%eth0":      {false, false},
		"::ffff:a9fe:a9fe":          {false, false},
		"0:0:0:0:0:ffff:a9fe:a9fe":  {false, false},
		"fd20:ce::254":              {false, false},
		"2001:4860:4860::8888":      {true, true},
		"8.8.8.8":                   {true, true},
		"::ffff:8.8.8.8":            {true, true},
		"169.253.255.255":           {true, true},
		"169.254.0.0":               {false, false},
		"2a00:1450:4001:80b::200e":  {true, true},
		"ff02::1":                   {false, true},
		"172.32.0.1":                {true, true},
		"::7f00:1":                  {true, true}, // IPv4-compatible addresses are routed nowhere
		"2001:db8::1":               {true, true}, // for documentation: routed nowhere
		"203.0.113.1":               {true, true}, // likewise
		"1.1.1.1":                   {true, true},
		"fdff:ffff:ffff:ffff::ffff": {false, true},
	}
	open, err := newReach(nil)
	if err != nil {
		t.Fatal(err)
	}
	listing, err := newReach([]string{"http://tools.example/"})
	if err != nil {
		t.Fatal(err)
	}
	for raw, want := range tests {
		dialed := netip.AddrPortFrom(netip.MustParseAddr(raw), 80).String()
		if got := open.control("tcp", dialed, nil) == nil; got != want.unlisted {
			t.Errorf("%s is reached without a list: %t", raw, got)
		}
		if got := listing.control("tcp", dialed, nil) == nil; got != want.listed {
			t.Errorf("%s is reached with a list: %t", raw, got)
		}
	}
	named, err := newReach([]string{"http://169.254.169.254/latest/", "http://[fe80::1]:8080"})
	if err != nil {
		t.Fatal(err)
	}
	for _, dialed := range []string{"169.254.169.254:80", "[fe80::1%eth0]:8080"} {
		if err := named.control("tcp", dialed, nil); err != nil {
			t.Errorf("%s is listed: %v", dialed, err)
		}
	}
	if err := named.control("tcp", "169.254.169.253:80", nil); err == nil {
		t.Error("an address beside the listed one is reached")
	}
}

func TestListedURLs(t *testing.T) {
	t.Parallel()
	r, err := newReach([]string{"https://Api.example/v1/", "http://127.0.0.1:8080", "https://one.example/exact"})
	if err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]bool{
		"https://api.example/v1/orders":       true,
		"https://api.example:443/v1/orders?x": true,
		"https://api.example./v1/":            true,
		"https://api.example/v1":              true,
		"https://api.example/v10":             false,
		"https://api.example/":                false,
		"http://api.example/v1/orders":        false,
		"https://api.example:8443/v1/":        false,
		"https://evil.example/v1/":            false,
		"https://api.example.evil/v1/":        false,
		"http://127.0.0.1:8080/any":           true,
		"http://127.0.0.1/any":                false,
		"https://one.example/exact":           true,
		"https://one.example/exact/more":      true,
		"https://one.example/exactly":         false,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.admits(u); got != want {
			t.Errorf("%s is admitted: %t", raw, got)
		}
	}
}

func TestURLsThatMeanTwoThingsAreRefused(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]error{
		"https://a.example":             nil,
		"https://a.example/b/?c=d":      nil,
		"https://a.example/b c":         nil,
		"":                              errNoWebURL,
		"a.example/b":                   errNoWebURL,
		"ftp://a.example":               errNoWebURL,
		"https:///b":                    errNoWebURL,
		"https://:80/":                  errNoWebURL,
		"https://u:p@a.example/":        errUserInfo,
		"https://u@a.example/":          errUserInfo,
		"https://a.example/#b":          errNoFragment,
		"https://a.example/b/../c":      errOddPath,
		"https://a.example/b/%2e%2e/c":  errOddPath,
		"https://a.example/b//c":        errOddPath,
		"https://a.example/b/./c":       errOddPath,
		"https://a.example/b%2fc":       errOddPath,
		"https://a.example/b%5c..%5cc":  errOddPath,
		"https://a.example/b\\..\\c":    errOddPath,
		"https://a.example/%252e%252e/": nil,
	} {
		if _, err := parseURL(raw); err != want { //nolint:errorlint // sentinels, never wrapped
			t.Errorf("%q: %v, want %v", raw, err, want)
		}
	}
}

// FuzzParseURL holds what is taken to mean the same once it is written again.
func FuzzParseURL(f *testing.F) {
	f.Add("https://a.example/b/?c=d")
	f.Add("http://[::1]:80/%2e%2e/")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := parseURL(raw)
		if err != nil {
			return
		}
		again, err := parseURL(u.String())
		if err != nil || origin(again) != origin(u) || again.Path != u.Path {
			t.Errorf("%q is read as %s, then as %v, %v", raw, u, again, err)
		}
	})
}
