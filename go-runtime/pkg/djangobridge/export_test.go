package djangobridge

// HandshakeTimeout is how long a connection may take to introduce itself.
const HandshakeTimeout = handshakeTimeout
