// Package djangobridge is the runtime as one thing: the gRPC edge that Django
// calls, put together with the journal, the engine, shared state, events and the
// HTTP gateway, and started and stopped in the right order.
//
// Every rpc passes the edge, which names the call, bounds its time, asks who
// calls and in which namespace, and translates errors; handlers convert, call
// one method and convert back. Nothing but errors.go knows gRPC codes.
package djangobridge
