// Package mcp connects the runtime with others by the Model Context Protocol, both
// ways: Servers are the servers whose tools the runtime's agents use, and Handler
// makes a server of the runtime, whose tools are its agents.
//
// Both speak the stateless protocol of 2026-07-28 and the ones before it, through
// the official SDK.
package mcp
