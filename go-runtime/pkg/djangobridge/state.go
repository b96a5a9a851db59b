package djangobridge

import (
	"context"
	"fmt"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/state"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// Page sizes of ListState.
const (
	defaultStatePage = 100
	maxStatePage     = 1000
)

// stateService answers the rpcs of shared state.
type stateService struct {
	agentruntimev1.UnsafeStateServiceServer

	store   *state.Store
	streams *streams
}

func (s *stateService) GetState(ctx context.Context, request *agentruntimev1.GetStateRequest) (*agentruntimev1.GetStateResponse, error) {
	entry, found, err := s.store.Get(ctx, namespaceOf(ctx), request.GetKey())
	if err != nil || !found {
		return &agentruntimev1.GetStateResponse{}, err
	}
	return &agentruntimev1.GetStateResponse{Entry: entryToWire(entry)}, nil
}

func (s *stateService) SetState(ctx context.Context, request *agentruntimev1.SetStateRequest) (*agentruntimev1.SetStateResponse, error) {
	ttl, err := duration("ttl", request.GetTtl())
	if err != nil {
		return nil, err
	}
	revision, err := s.store.Set(ctx, namespaceOf(ctx), state.SetRequest{
		Key:       request.GetKey(),
		Value:     request.GetValue(),
		Expect:    request.ExpectedRevision,
		TTL:       ttl,
		RequestID: request.GetRequestId(),
	})
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.SetStateResponse{Revision: revision}, nil
}

func (s *stateService) DeleteState(
	ctx context.Context, request *agentruntimev1.DeleteStateRequest,
) (*agentruntimev1.DeleteStateResponse, error) {
	existed, err := s.store.Delete(ctx, namespaceOf(ctx), request.GetKey(), request.ExpectedRevision, request.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &agentruntimev1.DeleteStateResponse{Existed: existed}, nil
}

func (s *stateService) ListState(
	ctx context.Context, request *agentruntimev1.ListStateRequest,
) (*agentruntimev1.ListStateResponse, error) {
	size, err := pageSize(request.GetPageSize(), defaultStatePage, maxStatePage)
	if err != nil {
		return nil, err
	}
	entries, next, err := s.store.List(ctx, namespaceOf(ctx), state.ListRequest{
		Prefix:    request.GetPrefix(),
		PageToken: request.GetPageToken(),
		PageSize:  size,
		KeysOnly:  request.GetKeysOnly(),
	})
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.ListStateResponse{NextPageToken: next}
	for _, entry := range entries {
		response.Entries = append(response.Entries, entryToWire(entry))
	}
	return response, nil
}

func (s *stateService) TransactState(
	ctx context.Context, request *agentruntimev1.TransactStateRequest,
) (*agentruntimev1.TransactStateResponse, error) {
	operations := make([]state.Operation, 0, len(request.GetOperations()))
	for i, wire := range request.GetOperations() {
		operation, err := operationFromWire(fmt.Sprintf("operations[%d]", i), wire)
		if err != nil {
			return nil, err
		}
		operations = append(operations, operation)
	}
	results, err := s.store.Transact(ctx, namespaceOf(ctx), operations, request.GetRequestId())
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.TransactStateResponse{}
	for _, result := range results {
		response.Results = append(response.Results,
			&agentruntimev1.StateOperationResult{Revision: result.Revision, Existed: result.Existed})
	}
	return response, nil
}

func (s *stateService) WatchState(request *agentruntimev1.WatchStateRequest, stream agentruntimev1.StateService_WatchStateServer) error {
	watch := state.WatchRequest{
		Prefix:         request.GetPrefix(),
		Key:            request.GetKey(),
		IncludeCurrent: request.GetIncludeCurrent(),
		After:          request.AfterRevision,
	}
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.WatchStateResponse) error) error {
		return s.store.Watch(ctx, namespaceOf(ctx), watch, func(batch state.Batch) error {
			return sendChanges(batch, send)
		})
	})
}

// sendChanges sends a batch in as many frames as its size asks for. A frame
// before the last carries the revision of its own last change.
func sendChanges(batch state.Batch, send func(*agentruntimev1.WatchStateResponse) error) error {
	changes := batch.Changes
	for {
		n := frameLength(changes, func(c state.Change) int { return len(c.Entry.Key) + len(c.Entry.Value) })
		frame := &agentruntimev1.WatchStateResponse{Revision: batch.Revision, CurrentSent: batch.CurrentSent}
		for _, change := range changes[:n] {
			frame.Changes = append(frame.Changes,
				&agentruntimev1.StateChange{Kind: kindToWire(change.Kind), Entry: entryToWire(change.Entry)})
		}
		if n < len(changes) {
			frame.Revision, frame.CurrentSent = changes[n-1].Entry.Revision, false
		}
		if err := send(frame); err != nil || n == len(changes) {
			return err
		}
		changes = changes[n:]
	}
}

func operationFromWire(field string, wire *agentruntimev1.StateOperation) (state.Operation, error) {
	switch operation := wire.GetOperation().(type) {
	case *agentruntimev1.StateOperation_Set_:
		ttl, err := duration(field+".set.ttl", operation.Set.GetTtl())
		return state.Operation{
			Key:    operation.Set.GetKey(),
			Value:  operation.Set.GetValue(),
			TTL:    ttl,
			Expect: wire.ExpectedRevision,
		}, err
	case *agentruntimev1.StateOperation_Delete_:
		return state.Operation{Key: operation.Delete.GetKey(), Delete: true, Expect: wire.ExpectedRevision}, nil
	default:
		return state.Operation{}, violation.New(field, "must set or delete")
	}
}

func entryToWire(entry state.Entry) *agentruntimev1.StateEntry {
	return &agentruntimev1.StateEntry{
		Key:        entry.Key,
		Value:      entry.Value,
		Revision:   entry.Revision,
		UpdateTime: timestamp(entry.UpdatedAt),
		ExpireTime: timestamp(entry.ExpiresAt),
	}
}

func kindToWire(kind state.Kind) agentruntimev1.StateChange_Kind {
	switch kind {
	case state.Set:
		return agentruntimev1.StateChange_KIND_SET
	case state.Deleted:
		return agentruntimev1.StateChange_KIND_DELETED
	case state.Expired:
		return agentruntimev1.StateChange_KIND_EXPIRED
	default:
		return agentruntimev1.StateChange_KIND_UNSPECIFIED
	}
}
