package djangobridge

import (
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// byNetwork asks for TLS on TCP and not on the Unix socket, which the
// operating system guards.
type byNetwork struct {
	credentials.TransportCredentials

	local credentials.TransportCredentials
}

func newByNetwork(tcp credentials.TransportCredentials) byNetwork {
	return byNetwork{TransportCredentials: tcp, local: insecure.NewCredentials()}
}

// ServerHandshake implements credentials.TransportCredentials.
func (c byNetwork) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == "unix" {
		return c.local.ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (c byNetwork) Clone() credentials.TransportCredentials {
	return byNetwork{TransportCredentials: c.TransportCredentials.Clone(), local: c.local.Clone()}
}
