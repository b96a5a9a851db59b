package djangobridge

import "github.com/djangobridge/djangobridge/go-runtime/internal/workspace"

// Files are the workspaces of runs, for tests to write into.
func (i *Integration) Files() *workspace.Store { return i.files }

// HandshakeTimeout is how long a connection may take to introduce itself.
const HandshakeTimeout = handshakeTimeout
