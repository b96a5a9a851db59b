// Command echo is the floor of the benchmarks: the least a gRPC server in Go can do.
//
// It answers every call with the request, over TCP and over a Unix socket, and
// prints the TCP address it listens on as its first line. It has no
// interceptors and keeps nothing, so what a call to it costs is gRPC itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) //nolint:forbidigo // this is main
}

// run serves until a signal ends it, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, args, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "echo:", err)
		return 1
	}
	return 0
}

// serve writes the TCP address to stdout once it listens, and returns when ctx ends.
func serve(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	socket := flags.String("socket", "", "path of the Unix socket")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	var listening net.ListenConfig
	overTCP, err := listening.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen on loopback: %w", err)
	}
	overSocket, err := listening.Listen(ctx, "unix", *socket)
	if err != nil {
		return fmt.Errorf("listen on the Unix socket: %w", err)
	}

	server := grpc.NewServer()
	server.RegisterService(echoService(), nil)
	failed := make(chan error, 2)
	for _, listener := range []net.Listener{overTCP, overSocket} {
		go func() { failed <- server.Serve(listener) }()
	}
	if _, err := fmt.Fprintln(stdout, overTCP.Addr()); err != nil {
		return fmt.Errorf("say where the server listens: %w", err)
	}

	select {
	case <-ctx.Done():
		server.Stop()
		return nil
	case err := <-failed:
		server.Stop()
		return fmt.Errorf("serve: %w", err)
	}
}

// echoService is /bench.v1.EchoService: `Bytes` echoes a google.protobuf.BytesValue,
// `Struct` a google.protobuf.Struct. Both are well-known types, so no code is generated.
func echoService() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "bench.v1.EchoService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Bytes", Handler: echo[wrapperspb.BytesValue]},
			{MethodName: "Struct", Handler: echo[structpb.Struct]},
		},
	}
}

// echo has the shape of grpc.MethodDesc.Handler.
//
//nolint:revive // gRPC puts the service before the context
func echo[Message any](_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	message := new(Message)
	if err := decode(message); err != nil {
		return nil, err
	}
	return message, nil
}
