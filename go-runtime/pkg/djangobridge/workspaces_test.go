package djangobridge_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	agentruntimev1 "github.com/djangobridge/djangobridge/go-runtime/gen/agentruntime/v1"
	"github.com/djangobridge/djangobridge/go-runtime/internal/sandbox"
)

// withFiles creates a run that has files.
func withFiles(t *testing.T, sys *system, files map[string]string) (runID string) {
	t.Helper()
	created, err := sys.agents.CreateRun(testContext(t), &agentruntimev1.CreateRunRequest{TaskType: "example_task", Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	runID = created.GetRun().GetRunId()
	w, err := sys.Files().Open(t.Context(), "default", runID)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := w.Write(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Save(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
	return runID
}

// getFile reads a file in the way of clients.
func getFile(t *testing.T, sys *system, runID, path string) (*agentruntimev1.RunFile, []byte, error) {
	t.Helper()
	stream, err := agentruntimev1.NewWorkspaceServiceClient(sys.conn).
		GetFile(testContext(t), &agentruntimev1.GetFileRequest{RunId: runID, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	var file *agentruntimev1.RunFile
	var data []byte
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file, data, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if message.GetFile() != nil {
			file = message.GetFile()
		}
		data = append(data, message.GetData()...)
	}
}

func TestFilesOfARun(t *testing.T) {
	t.Parallel()
	sys := start(t)
	large := strings.Repeat("0123456789abcdef", 60_000)
	runID := withFiles(t, sys, map[string]string{"src/main.py": "print()\n", "large.txt": large, "empty": ""})
	files := agentruntimev1.NewWorkspaceServiceClient(sys.conn)

	listed, err := files.ListFiles(testContext(t), &agentruntimev1.ListFilesRequest{RunId: runID})
	if err != nil || len(listed.GetFiles()) != 3 {
		t.Fatal(listed, err)
	}
	if f := listed.GetFiles()[2]; f.GetPath() != "src/main.py" || f.GetSize() != 8 || len(f.GetSha256()) != 64 || f.GetExecutable() {
		t.Error(f)
	}
	for path, want := range map[string]string{"src/main.py": "print()\n", "large.txt": large, "empty": ""} {
		file, data, err := getFile(t, sys, runID, path)
		if err != nil || string(data) != want || file.GetPath() != path || file.GetSize() != int64(len(want)) {
			t.Errorf("%s: %v, %d bytes, %v", path, file, len(data), err)
		}
	}

	stream, err := files.GetArchive(testContext(t), &agentruntimev1.GetArchiveRequest{RunId: runID})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if message.GetOffset() != int64(text.Len()) {
			t.Errorf("offset %d behind %d bytes", message.GetOffset(), text.Len())
		}
		text.Write(message.GetData())
	}
	archive, err := zip.NewReader(bytes.NewReader(text.Bytes()), int64(text.Len()))
	if err != nil || len(archive.File) != 3 || archive.File[1].Name != "large.txt" || archive.File[1].UncompressedSize64 != uint64(len(large)) {
		t.Error(archive, err)
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	sys := start(t)
	runID := withFiles(t, sys, nil)
	files := agentruntimev1.NewWorkspaceServiceClient(sys.conn)
	if listed, err := files.ListFiles(testContext(t), &agentruntimev1.ListFilesRequest{RunId: runID}); err != nil || len(listed.GetFiles()) > 0 {
		t.Error(listed, err)
	}
	_, _, err := getFile(t, sys, runID, "main.py")
	if about := refused(t, err, codes.NotFound, "FILE_NOT_FOUND"); about["run_id"] != runID || about["path"] != "main.py" {
		t.Error(about)
	}
	for _, path := range []string{"", "../x", "/etc/passwd", "a\x00b"} {
		_, _, err = getFile(t, sys, runID, path)
		refused(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
	}
	// Another namespace has other runs.
	_, err = files.ListFiles(in(t, "other"), &agentruntimev1.ListFilesRequest{RunId: runID})
	refused(t, err, codes.NotFound, "RUN_NOT_FOUND")
	stream, err := files.GetArchive(in(t, "other"), &agentruntimev1.GetArchiveRequest{RunId: runID})
	if err == nil {
		_, err = stream.Recv()
	}
	refused(t, err, codes.NotFound, "RUN_NOT_FOUND")
	_, _, err = getFile(t, sys, "6a0cf2a4-1111-4222-8333-944444444444", "a")
	refused(t, err, codes.NotFound, "RUN_NOT_FOUND")
}

func TestQuotasOfTheConfigurationHold(t *testing.T) {
	t.Parallel()
	sys := start(t, "--workspace-max-files=1", "--workspace-max-file-bytes=1KiB")
	w, err := sys.Files().Open(t.Context(), "default", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if err := w.Write("a", make([]byte, 1025)); err == nil {
		t.Error("a file above the limit")
	}
	if err := errors.Join(w.Write("a", make([]byte, 1024)), w.Save(t.Context())); err != nil {
		t.Error(err)
	}
	if err := w.Write("b", nil); err == nil {
		t.Error("one file too many")
	}
}

// The test's program has no launcher, so commands cannot be isolated.
func TestRequiredSandboxIsMissed(t *testing.T) {
	t.Parallel()
	var missing *sandbox.UnavailableError
	if err := assemble(t, load(t, "--sandbox=require")).Start(testContext(t)); !errors.As(err, &missing) {
		t.Error(err)
	}
}
