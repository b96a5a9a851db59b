package djangobridge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// workerService answers the rpc of workers.
type workerService struct {
	agentruntimev1.UnsafeWorkerServiceServer

	engine  *engine.Engine
	streams *streams
}

// receiveFirst returns the first message of a stream, however long the client takes
// unless the runtime stops.
func (s *workerService) receiveFirst(stream agentruntimev1.WorkerService_WorkServer) (*agentruntimev1.WorkRequest, error) {
	var first *agentruntimev1.WorkRequest
	var err error
	received := make(chan struct{})
	s.streams.left.Go(func() {
		defer close(received)
		first, err = stream.Recv()
	})
	select {
	case <-received:
		return first, err
	case <-s.streams.running.Done():
		return nil, errDraining
	}
}

func (s *workerService) Work(stream agentruntimev1.WorkerService_WorkServer) error {
	first, err := s.receiveFirst(stream)
	if err != nil {
		return err
	}
	hello, err := helloFromWire(first.GetHello())
	if err != nil {
		return err
	}
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.WorkResponse) error) error {
		worker, held, err := s.engine.Connect(ctx, namespaceOf(ctx), hello)
		if err != nil {
			return err
		}
		defer worker.Disconnect()
		welcome := &agentruntimev1.Welcome{
			LeaseTtl:        durationpb.New(worker.LeaseTTL()),
			MaxPayloadBytes: uint64(worker.MaxPayloadBytes()),
		}
		for _, h := range held {
			welcome.Held = append(welcome.Held, ackToWire(h))
		}
		if err := send(&agentruntimev1.WorkResponse{Welcome: welcome}); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		probes := make(chan uint64, 1)
		heard := make(chan struct{})
		s.streams.left.Go(func() {
			defer close(heard)
			cancel(hear(ctx, worker, first, stream, probes))
		})
		err = speak(ctx, worker, probes, send)
		switch why := context.Cause(ctx); {
		case errors.Is(why, errWorkerEnds):
			worker.Leave()
			return nil
		case errors.Is(why, errWorkerLeft):
			return nil
		}
		return err
	})
}

// What ends a stream that the worker closed, and one of a worker that ends.
var (
	errWorkerLeft = errors.New("the worker closed the stream")
	errWorkerEnds = errors.New("the worker ends")
)

// hear takes what the worker says, until it says nothing more or nothing sensible.
func hear(
	ctx context.Context, worker *engine.Connection, request *agentruntimev1.WorkRequest,
	stream agentruntimev1.WorkerService_WorkServer, probes chan uint64,
) error {
	for {
		worker.Heard()
		if request.GetDraining() {
			worker.Drain()
		}
		reports, err := reportsFromWire(request.GetReports())
		if err != nil {
			return err
		}
		if err := worker.Report(ctx, reports); err != nil {
			return err
		}
		if request.GetLeaving() {
			return errWorkerEnds
		}
		if number := request.GetProbe(); number != 0 {
			// Only the newest counts.
			select {
			case <-probes:
			default:
			}
			probes <- number
		}
		request, err = stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errWorkerLeft
		case err != nil:
			return err
		case request.GetHello() != nil:
			return violation.New("hello", "must be in the first message only")
		}
	}
}

// speak sends the worker what there is to say, until the stream ends.
func speak(
	ctx context.Context, worker *engine.Connection, probes <-chan uint64, send func(*agentruntimev1.WorkResponse) error,
) error {
	orders := make(chan engine.Orders)
	failed := make(chan error, 1)
	inner, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			next, err := worker.Next(inner)
			if err != nil {
				failed <- err
				return
			}
			select {
			case orders <- next:
			case <-inner.Done():
				failed <- context.Cause(inner)
				return
			}
		}
	}()
	defer func() {
		cancel(nil)
		<-done
	}()
	for {
		var err error
		select {
		case next := <-orders:
			err = sendOrders(next, send)
		case number := <-probes:
			err = send(&agentruntimev1.WorkResponse{Probe: number})
		case err = <-failed:
			if errors.Is(err, engine.ErrStopped) {
				err = errors.Join(err, send(&agentruntimev1.WorkResponse{Draining: true}))
			}
		}
		if err != nil {
			return err
		}
	}
}

func helloFromWire(wire *agentruntimev1.Hello) (engine.Hello, error) {
	if wire == nil {
		return engine.Hello{}, violation.New("hello", "must be in the first message")
	}
	ttl, errTTL := duration("hello.lease_ttl", wire.GetLeaseTtl())
	checks := []error{errTTL}
	hello := engine.Hello{
		ID: wire.GetWorkerId(), Name: wire.GetName(), Concurrency: int(wire.GetConcurrency()), LeaseTTL: ttl,
	}
	for i, a := range wire.GetAgents() {
		field := fmt.Sprintf("hello.agents[%d]", i)
		retry, errRetry := retryFromWire(field+".retry", a.GetRetry())
		timeout, errTimeout := duration(field+".run_timeout", a.GetRunTimeout())
		checks = append(checks, errRetry, errTimeout)
		hello.Agents = append(hello.Agents, engine.WorkerAgent{
			ID: a.GetAgentId(), Description: a.GetDescription(),
			RunDefaults: engine.RunDefaults{Retry: retry, RunTimeout: timeout},
		})
	}
	for _, h := range wire.GetHeld() {
		hello.Held = append(hello.Held, engine.HeldLease{RunID: h.GetRunId(), Lease: h.GetLease()})
	}
	return hello, violation.Join(checks...)
}

func reportsFromWire(wire []*agentruntimev1.Report) ([]engine.Report, error) {
	reports := make([]engine.Report, 0, len(wire))
	for i, w := range wire {
		r, err := reportFromWire(w)
		if err != nil {
			if names, moved := violation.In(fmt.Sprintf("reports[%d]", i), err); names {
				err = moved
			}
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func reportFromWire(wire *agentruntimev1.Report) (engine.Report, error) {
	r := engine.Report{RunID: wire.GetRunId(), Lease: wire.GetLease(), Number: wire.GetNumber()}
	switch what := wire.GetReport().(type) {
	case *agentruntimev1.Report_Events:
		r.Events = make([]engine.NewEvent, 0, len(what.Events.GetEvents()))
		for _, ev := range what.Events.GetEvents() {
			visibility, err := visibilityFromWire("visibility", ev.GetVisibility(), engine.User)
			if err != nil {
				visibility = engine.User // as an unknown type is
			}
			r.Events = append(r.Events, engine.NewEvent{Type: ev.GetType(), Visibility: visibility, Payload: ev.GetPayload()})
		}
	case *agentruntimev1.Report_Step:
		r.Step = &engine.Step{Key: what.Step.GetKey(), Result: what.Step.GetResult()}
	case *agentruntimev1.Report_StartRun:
		request, err := createFromWire(what.StartRun.GetRun())
		r.StartRun = &engine.StartRun{
			Key: what.StartRun.GetKey(), Request: request, TraceParent: what.StartRun.GetTraceparent(), Err: err,
		}
	case *agentruntimev1.Report_Succeed:
		r.Succeed = &engine.Succeed{Output: what.Succeed.GetOutput()}
	case *agentruntimev1.Report_Fail:
		r.Fail = &engine.Fail{
			Message: what.Fail.GetMessage(), Retryable: what.Fail.GetRetryable(),
			RetryAfter: max(0, what.Fail.GetRetryAfter().AsDuration()), Type: what.Fail.GetErrorType(),
		}
	case *agentruntimev1.Report_Park:
		r.Park = &engine.Wait{
			InterruptID: what.Park.GetInterrupt().GetInterruptId(), Payload: what.Park.GetInterrupt().GetPayload(),
			Runs: what.Park.GetWaitFor(),
		}
	case *agentruntimev1.Report_GiveBack:
		r.GiveBack = true
	case *agentruntimev1.Report_Release:
		r.Release = true
	default:
		return r, violation.New("report", "must say something")
	}
	return r, nil
}

// sendOrders sends what there is to say to a worker in as many messages as it
// takes: what assigns and answers can be large.
func sendOrders(orders engine.Orders, send func(*agentruntimev1.WorkResponse) error) error {
	message, size := &agentruntimev1.WorkResponse{}, 0
	// makeRoom sends the message if what comes next does not go into it as well.
	makeRoom := func(next proto.Message) error {
		bytes := proto.Size(next)
		if size > 0 && size+bytes > maxFrameBytes {
			if err := send(message); err != nil {
				return err
			}
			message, size = &agentruntimev1.WorkResponse{}, 0
		}
		size += bytes
		return nil
	}
	for _, r := range orders.Refusals {
		why := describe(r.Err)
		refusal := &agentruntimev1.Refusal{
			RunId: r.RunID, Lease: r.Lease, Number: r.Report, Reason: why.reason, Message: why.message,
		}
		if err := makeRoom(refusal); err != nil {
			return err
		}
		message.Refusals = append(message.Refusals, refusal)
	}
	for _, a := range orders.Acks {
		message.Acks = append(message.Acks, ackToWire(a))
	}
	for _, c := range orders.Children {
		child := &agentruntimev1.ChildRun{
			ParentRunId: c.ParentID, Lease: c.Lease, Number: c.Report, Run: runToWire(c.Run),
		}
		if err := makeRoom(child); err != nil {
			return err
		}
		message.ChildRuns = append(message.ChildRuns, child)
	}
	for _, a := range orders.Assignments {
		assignment := assignmentToWire(a)
		if err := makeRoom(assignment); err != nil {
			return err
		}
		message.Assignments = append(message.Assignments, assignment)
	}
	// Last, as they may be of what was assigned in another message.
	for _, c := range orders.Cancellations {
		message.Cancellations = append(message.Cancellations,
			&agentruntimev1.Cancellation{RunId: c.RunID, Lease: c.Lease, Reason: string(c.Reason)})
	}
	return send(message)
}

func ackToWire(h engine.HeldLease) *agentruntimev1.Ack {
	return &agentruntimev1.Ack{RunId: h.RunID, Lease: h.Lease, Number: h.Report}
}

func assignmentToWire(a engine.Assignment) *agentruntimev1.Assignment {
	wire := &agentruntimev1.Assignment{
		Run: runToWire(a.Run), Lease: a.Lease, RunTimeout: durationpb.New(a.Run.RunTimeout),
		Checkpoint: a.Checkpoint, Traceparent: a.Trace.TraceParent, TraceAsked: a.Trace.Asked, TraceProject: a.Trace.Project,
	}
	if a.StepTimeout > 0 {
		wire.StepTimeout = durationpb.New(a.StepTimeout)
	}
	for _, step := range a.Steps {
		wire.Steps = append(wire.Steps, &agentruntimev1.RecordStep{Key: step.Key, Result: step.Result})
	}
	for _, answer := range a.Answers {
		wire.Answers = append(wire.Answers, &agentruntimev1.Interrupt{
			InterruptId: answer.InterruptID, Question: answer.Question, Payload: answer.Value,
		})
	}
	return wire
}
