package tool

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"syscall"
)

// addressError refuses to connect to an address.
type addressError struct {
	address netip.Addr
}

func (e *addressError) Error() string {
	return fmt.Sprintf("tools may not connect to %s, which is an address inside; the setting http-tools lists where they may", e.address)
}

// metadataAddresses are where machines in clouds learn of themselves, credentials
// included, beside the link-local ones.
func metadataAddresses() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("100.100.100.200/32"), // Alibaba
		netip.MustParsePrefix("192.0.0.192/32"),     // Oracle
		netip.MustParsePrefix("fd00:ec2::/32"),      // Amazon
		netip.MustParsePrefix("fd20:ce::/32"),       // Google
		netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	}
}

// innerAddresses are reached from inside a network alone, or stand for others that
// are, beside those that netip.Addr tells; see the registries of special-purpose addresses of RFC 6890.
func innerAddresses() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("192.0.0.0/24"),
		netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"),
		netip.MustParsePrefix("2002::/16"),
		netip.MustParsePrefix("fec0::/10"),
	}
}

func within(address netip.Addr, ranges []netip.Prefix) bool {
	for _, r := range ranges {
		if r.Contains(address) {
			return true
		}
	}
	return false
}

// embedded returns the IPv4 address that a translated IPv6 address (RFC 6052) stands for.
func embedded(address netip.Addr) netip.Addr {
	if !netip.MustParsePrefix("64:ff9b::/96").Contains(address) {
		return address
	}
	bytes := address.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

func metadata(address netip.Addr) bool {
	address = embedded(address)
	return address.IsLinkLocalUnicast() || within(address, metadataAddresses())
}

func public(address netip.Addr) bool {
	return address.IsGlobalUnicast() && !address.IsPrivate() && !address.IsLoopback() &&
		!metadata(address) && !within(address, innerAddresses())
}

// reach says where HTTP tools may go.
type reach struct {
	prefixes []*url.URL
	// addresses are those that a prefix has in place of a name.
	addresses map[netip.Addr]bool
}

// newReach reads the prefixes of URLs that may be called; none: whatever is public.
func newReach(prefixes []string) (reach, error) {
	r := reach{addresses: map[netip.Addr]bool{}}
	for _, raw := range prefixes {
		u, err := parseURL(raw)
		if err != nil {
			return reach{}, fmt.Errorf("%q %w", raw, err)
		}
		if u.RawQuery != "" {
			return reach{}, fmt.Errorf("%q must not have a query", raw)
		}
		r.prefixes = append(r.prefixes, u)
		if address, err := netip.ParseAddr(u.Hostname()); err == nil {
			r.addresses[address.Unmap()] = true
		}
	}
	return r, nil
}

// listed reports whether a URL begins with a prefix, at the boundary of a segment of its path.
func (r reach) listed(u *url.URL) bool {
	for _, prefix := range r.prefixes {
		if origin(u) != origin(prefix) {
			continue
		}
		folder := strings.TrimSuffix(prefix.Path, "/")
		if u.Path == prefix.Path || u.Path == folder || strings.HasPrefix(u.Path, folder+"/") {
			return true
		}
	}
	return false
}

// admits reports whether a URL may be called; what its name resolves to is checked by control.
func (r reach) admits(u *url.URL) bool {
	return len(r.prefixes) == 0 || r.listed(u)
}

// control is that of net.Dialer: it sees the address itself, so that a name which
// resolves to another one than a moment ago does not pass.
func (r reach) control(_, dialed string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(dialed)
	if err != nil {
		return fmt.Errorf("connect to %q: %w", dialed, err)
	}
	address := at.Addr().Unmap().WithZone("")
	switch {
	case r.addresses[address]:
		return nil
	case len(r.prefixes) > 0 && !metadata(address):
		return nil
	case len(r.prefixes) == 0 && public(address):
		return nil
	}
	return &addressError{address}
}

// origin is a URL's scheme, host and port, where two that mean the same are equal.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return u.Scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) + ":" + port
}

var (
	errNoWebURL   = errors.New("must be an http:// or https:// URL")
	errUserInfo   = errors.New("must not hold a user or password: put a secret into a header")
	errOddPath    = errors.New("must have a path without empty, dot and percent-encoded slash segments")
	errNoFragment = errors.New("must not have a fragment")
)

// parseURL reads a URL that means the same to whoever checks it and whoever serves
// it. An error completes a sentence that begins with the URL, and does not quote it.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, errNoWebURL
	case u.User != nil:
		return nil, errUserInfo
	case u.Fragment != "":
		return nil, errNoFragment
	}
	if u.Path == "" {
		u.Path = "/"
	}
	encoded := strings.ToLower(u.EscapedPath())
	if clean := path.Clean(u.Path); (u.Path != clean && u.Path != clean+"/") || strings.Contains(encoded, "%2f") ||
		strings.Contains(encoded, "%5c") || strings.Contains(u.Path, `\`) {
		return nil, errOddPath
	}
	return u, nil
}
