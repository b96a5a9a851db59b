package djangobridge

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// newcomers are the connections that have not introduced themselves yet: gRPC
// waits for those up to handshakeTimeout, also when it stops. The zero value is ready.
type newcomers struct {
	mu         sync.Mutex
	conns      map[*newcomer]struct{}
	turnedAway bool
}

// newcomer is a connection from its acceptance on.
type newcomer struct {
	net.Conn

	all *newcomers
}

// listener returns l with what it accepts known to n.
func (n *newcomers) listener(l net.Listener) net.Listener { return greeter{l, n} }

type greeter struct {
	net.Listener

	all *newcomers
}

// Accept implements net.Listener.
func (g greeter) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return g.all.add(conn), nil
}

func (n *newcomers) add(conn net.Conn) *newcomer {
	c := &newcomer{Conn: conn, all: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.turnedAway {
		_ = conn.Close() // gRPC finds out
		return c
	}
	if n.conns == nil {
		n.conns = map[*newcomer]struct{}{}
	}
	n.conns[c] = struct{}{}
	return c
}

func (n *newcomers) remove(c *newcomer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// turnAway closes every newcomer, and those who are still to come.
func (n *newcomers) turnAway() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turnedAway = true
	for c := range n.conns {
		_ = c.Conn.Close() // gRPC finds out
	}
}

// SetDeadline implements net.Conn. gRPC sets one for the introduction, and takes
// it away once that is over.
func (c *newcomer) SetDeadline(at time.Time) error {
	if at.IsZero() {
		c.all.remove(c)
	}
	return c.Conn.SetDeadline(at)
}

// Close implements net.Conn.
func (c *newcomer) Close() error {
	c.all.remove(c)
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn, with which gRPC reads without a buffer
// for connections that are silent.
func (c *newcomer) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}
