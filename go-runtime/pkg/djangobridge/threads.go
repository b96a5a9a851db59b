package djangobridge

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/agent"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/graph"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonvalue"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Pages of threads and of their history.
const (
	defaultHistoryPage = 20
	maxThreadPage      = 100
	// maxHistoryBytes is after how many bytes of states a page of history ends.
	maxHistoryBytes = 4 << 20
)

// threadService answers the rpcs of threads of graphs.
type threadService struct {
	agentruntimev1.UnimplementedThreadServiceServer

	threads *agent.Registry
	engine  *engine.Engine
}

// read finds a thread by its id or by a run of it.
func (s *threadService) read(ctx context.Context, threadID, runID string) (*agent.ThreadReader, error) {
	if runID == "" {
		return s.threads.Thread(ctx, namespaceOf(ctx), threadID)
	}
	if threadID != "" {
		return nil, violation.New("run_id", "stands in the place of a thread_id, and not beside one")
	}
	run, err := s.engine.PeekRun(ctx, namespaceOf(ctx), runID)
	if err != nil {
		return nil, err
	}
	steps, err := s.engine.RunSteps(ctx, run.Namespace, run.ID)
	if err != nil {
		return nil, err
	}
	return s.threads.ThreadOfRun(ctx, run, steps)
}

func (s *threadService) GetThreadState(
	ctx context.Context, request *agentruntimev1.GetThreadStateRequest,
) (*agentruntimev1.GetThreadStateResponse, error) {
	thread, err := s.read(ctx, request.GetThreadId(), request.GetRunId())
	if err != nil {
		return nil, err
	}
	snapshot, err := thread.State(ctx, request.GetRevision())
	if err != nil {
		return nil, err
	}
	state, err := threadStateToWire(snapshot)
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.GetThreadStateResponse{State: state}, nil
}

func (s *threadService) ListThreadHistory(
	ctx context.Context, request *agentruntimev1.ListThreadHistoryRequest,
) (*agentruntimev1.ListThreadHistoryResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultHistoryPage, maxThreadPage)
	if err != nil {
		return nil, err
	}
	thread, err := s.read(ctx, request.GetThreadId(), request.GetRunId())
	if err != nil {
		return nil, err
	}
	history, err := thread.History(ctx, request.GetBefore(), size)
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.ListThreadHistoryResponse{}
	more, bytes := len(history) == size, 0
	for i, snapshot := range history {
		state, err := threadStateToWire(snapshot)
		if err != nil {
			return nil, err
		}
		if bytes += len(state.GetValues()); i > 0 && bytes > maxHistoryBytes {
			more = true
			break
		}
		response.States = append(response.States, state)
	}
	if more {
		// Of the thread's first one it is 1, before which there is nothing.
		if last := history[len(response.GetStates())-1].Revision; last > 1 {
			response.NextBefore = last
		}
	}
	return response, nil
}

func (s *threadService) UpdateThreadState(
	ctx context.Context, request *agentruntimev1.UpdateThreadStateRequest,
) (*agentruntimev1.UpdateThreadStateResponse, error) {
	if err := checkRequestID(request.GetRequestId()); err != nil {
		return nil, err
	}
	var values graph.State
	if text := request.GetValues(); len(text) > 0 {
		if json.Unmarshal(text, &values) != nil {
			return nil, violation.New("values", "must be a JSON object")
		}
		if err := jsonvalue.CheckExact("values", text); err != nil {
			return nil, err
		}
	}
	snapshot, err := s.threads.UpdateThread(ctx, namespaceOf(ctx), request.GetThreadId(), request.GetGraphId(),
		request.GetAsNode(), values, request.GetRequestId())
	if err != nil {
		return nil, err
	}
	state, err := threadStateToWire(snapshot)
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.UpdateThreadStateResponse{State: state}, nil
}

func (s *threadService) ForkThread(
	ctx context.Context, request *agentruntimev1.ForkThreadRequest,
) (*agentruntimev1.ForkThreadResponse, error) {
	if err := checkRequestID(request.GetRequestId()); err != nil {
		return nil, err
	}
	snapshot, err := s.threads.ForkThread(ctx, namespaceOf(ctx), request.GetThreadId(), request.GetRevision(),
		request.GetToThreadId(), request.GetRequestId())
	if err != nil {
		return nil, err
	}
	state, err := threadStateToWire(snapshot)
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.ForkThreadResponse{State: state}, nil
}

func (s *threadService) ListThreads(
	ctx context.Context, request *agentruntimev1.ListThreadsRequest,
) (*agentruntimev1.ListThreadsResponse, error) {
	size, err := pageSize(request.GetPageSize(), maxThreadPage, maxThreadPage)
	if err != nil {
		return nil, err
	}
	var after uint64
	if token := request.GetPageToken(); token != "" {
		if after, err = strconv.ParseUint(token, 10, 64); err != nil {
			return nil, violation.New("page_token", "is not one of this service")
		}
	}
	threads, err := s.threads.Threads(ctx, namespaceOf(ctx), after, size)
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.ListThreadsResponse{}
	for _, t := range threads {
		response.Threads = append(response.Threads, &agentruntimev1.Thread{
			ThreadId: t.ID, GraphId: t.Graph, Revision: t.Revision, Status: threadStatusToWire(t.Status),
			UpdateTime: timestamp(t.Updated), Error: t.Error,
		})
	}
	if len(threads) == size {
		response.NextPageToken = strconv.FormatUint(threads[size-1].Position, 10)
	}
	return response, nil
}

func (s *threadService) DeleteThread(
	ctx context.Context, request *agentruntimev1.DeleteThreadRequest,
) (*agentruntimev1.DeleteThreadResponse, error) {
	if err := s.threads.DeleteThread(ctx, namespaceOf(ctx), request.GetThreadId()); err != nil {
		return nil, err
	}
	return &agentruntimev1.DeleteThreadResponse{}, nil
}

func checkRequestID(requestID string) error {
	if len(requestID) > maxRequestIDBytes {
		return violation.New("request_id", "is %d bytes long, the limit is %d", len(requestID), maxRequestIDBytes)
	}
	return nil
}

func threadStateToWire(s agent.Snapshot) (*agentruntimev1.ThreadState, error) {
	values, err := json.Marshal(s.Values)
	if err != nil {
		return nil, fmt.Errorf("encode state of thread %s: %w", s.ThreadID, err)
	}
	state := &agentruntimev1.ThreadState{
		ThreadId: s.ThreadID, GraphId: s.GraphID, Revision: s.Revision, Parent: s.Parent,
		Status: threadStatusToWire(s.Status), Source: threadSourceToWire(s.Source), Step: int32(s.Step),
		Time: timestamp(s.Time), Values: values, Next: s.Next, Error: s.Error,
	}
	for _, interrupt := range s.Interrupts {
		value, err := json.Marshal(interrupt.Value)
		if err != nil {
			return nil, fmt.Errorf("encode interrupt %s of thread %s: %w", interrupt.ID, s.ThreadID, err)
		}
		state.Interrupts = append(state.Interrupts, &agentruntimev1.ThreadInterrupt{
			InterruptId: interrupt.ID, Node: interrupt.Node, Value: value, RunId: interrupt.Run,
		})
	}
	return state, nil
}

func threadStatusToWire(s graph.Status) agentruntimev1.ThreadStatus {
	switch s {
	case graph.Running:
		return agentruntimev1.ThreadStatus_THREAD_STATUS_RUNNING
	case graph.Waiting:
		return agentruntimev1.ThreadStatus_THREAD_STATUS_WAITING
	case graph.Done:
		return agentruntimev1.ThreadStatus_THREAD_STATUS_DONE
	case graph.Failed:
		return agentruntimev1.ThreadStatus_THREAD_STATUS_FAILED
	default:
		return agentruntimev1.ThreadStatus_THREAD_STATUS_UNSPECIFIED
	}
}

func threadSourceToWire(s graph.Source) agentruntimev1.ThreadSource {
	switch s {
	case graph.Begun:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_INPUT
	case graph.Resumed:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_RESUME
	case graph.Stepped:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_STEP
	case graph.Updated:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_UPDATE
	case graph.Forked:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_FORK
	default:
		return agentruntimev1.ThreadSource_THREAD_SOURCE_UNSPECIFIED
	}
}
