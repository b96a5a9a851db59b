package djangobridge

import (
	"context"
	"errors"
	"io"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/workspace"
)

// maxChunkBytes is the most that one message has of a file or an archive.
const maxChunkBytes = 256 << 10

// workspaceService answers the rpcs of the files of runs.
type workspaceService struct {
	agentruntimev1.UnsafeWorkspaceServiceServer

	engine  *engine.Engine
	files   *workspace.Store
	streams *streams
}

func (s *workspaceService) ListFiles(
	ctx context.Context, request *agentruntimev1.ListFilesRequest,
) (*agentruntimev1.ListFilesResponse, error) {
	run, err := s.engine.PeekRun(ctx, namespaceOf(ctx), request.GetRunId())
	if err != nil {
		return nil, err
	}
	files, err := s.files.Files(ctx, run.Namespace, run.ID)
	if err != nil {
		return nil, err
	}
	response := &agentruntimev1.ListFilesResponse{}
	for _, file := range files {
		response.Files = append(response.Files, fileToWire(file))
	}
	return response, nil
}

func (s *workspaceService) GetFile(request *agentruntimev1.GetFileRequest, stream agentruntimev1.WorkspaceService_GetFileServer) error {
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.GetFileResponse) error) error {
		run, err := s.engine.PeekRun(ctx, namespaceOf(ctx), request.GetRunId())
		if err != nil {
			return err
		}
		file, content, err := s.files.Get(ctx, run.Namespace, run.ID, request.GetPath())
		if err != nil {
			return err
		}
		if err := send(&agentruntimev1.GetFileResponse{File: fileToWire(file)}); err != nil {
			return err
		}
		return sendChunks(content, func(data []byte) error { return send(&agentruntimev1.GetFileResponse{Data: data}) })
	})
}

func (s *workspaceService) GetArchive(
	request *agentruntimev1.GetArchiveRequest, stream agentruntimev1.WorkspaceService_GetArchiveServer,
) error {
	return pump(s.streams, stream, func(ctx context.Context, send func(*agentruntimev1.GetArchiveResponse) error) error {
		run, err := s.engine.PeekRun(ctx, namespaceOf(ctx), request.GetRunId())
		if err != nil {
			return err
		}
		var offset int64
		chunks := &chunkWriter{send: func(data []byte) error {
			begin := offset
			offset += int64(len(data))
			return send(&agentruntimev1.GetArchiveResponse{Data: data, Offset: begin})
		}}
		if err := s.files.Archive(ctx, run.Namespace, run.ID, chunks); err != nil {
			return err
		}
		return chunks.flush()
	})
}

// sendChunks sends what a reader has. Each message has bytes of its own: those
// before it may still be on their way.
func sendChunks(from io.Reader, send func([]byte) error) error {
	for {
		chunk := make([]byte, maxChunkBytes)
		n, err := io.ReadFull(from, chunk)
		if n > 0 {
			if err := send(chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		default:
			return err
		}
	}
}

// chunkWriter sends what is written to it in chunks.
type chunkWriter struct {
	send   func([]byte) error
	buffer []byte
}

// Write implements io.Writer.
func (w *chunkWriter) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		if w.buffer == nil {
			w.buffer = make([]byte, 0, maxChunkBytes)
		}
		n := min(len(rest), maxChunkBytes-len(w.buffer))
		w.buffer, rest = append(w.buffer, rest[:n]...), rest[n:]
		if len(w.buffer) < maxChunkBytes {
			break
		}
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

func (w *chunkWriter) flush() error {
	full := w.buffer
	w.buffer = nil
	if len(full) == 0 {
		return nil
	}
	return w.send(full)
}

func fileToWire(f workspace.File) *agentruntimev1.RunFile {
	return &agentruntimev1.RunFile{Path: f.Path, Size: f.Size, Sha256: f.SHA256, Executable: f.Executable}
}

// runStatus tells the files of which runs are too old.
func runStatus(e func() *engine.Engine) workspace.Runs {
	return func(ctx context.Context, namespace, runID string) (workspace.RunStatus, error) {
		run, err := e().PeekRun(ctx, namespace, runID)
		if errors.As(err, new(*engine.RunNotFoundError)) {
			return workspace.RunStatus{}, nil
		}
		if err != nil {
			return workspace.RunStatus{}, err
		}
		return workspace.RunStatus{Known: true, Ended: run.EndedAt}, nil
	}
}
