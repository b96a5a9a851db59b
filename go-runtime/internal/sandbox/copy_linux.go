package sandbox

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// unpack takes in the folder's files.
func (l *launcher) unpack() error {
	root, err := os.OpenRoot(workspaceDir)
	if err != nil {
		return err
	}
	archive := tar.NewReader(l.requests)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return root.Close()
		}
		if err == nil {
			err = l.unpackFile(root, header, archive)
		}
		if err != nil {
			return err
		}
	}
}

func (l *launcher) unpackFile(root *os.Root, header *tar.Header, content io.Reader) error {
	folder := filepath.Dir(header.Name)
	if err := root.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(header.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(header.Mode)&0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close()); err != nil || l.request.UID == 0 {
		return err
	}
	for name := header.Name; name != "." && err == nil; name = filepath.Dir(name) {
		err = root.Chown(name, l.request.UID, l.request.UID)
	}
	return err
}

// pack sends back what is in the workspace. No process is left that could
// change it meanwhile.
func (l *launcher) pack() error {
	out := bufio.NewWriterSize(l.responses, 64<<10)
	archive := tar.NewWriter(out)
	err := filepath.WalkDir(workspaceDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return packEntry(archive, path, entry)
	})
	if err = errors.Join(err, archive.Close(), out.Flush()); err != nil {
		return fmt.Errorf("send back the folder: %w", err)
	}
	return nil
}

// packEntry adds one entry: the content of plain files, and of what else there
// is only that it is there.
func packEntry(archive *tar.Writer, path string, entry fs.DirEntry) error {
	name, err := filepath.Rel(workspaceDir, path)
	if err != nil || entry.IsDir() {
		return err
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: name, ModTime: time.Unix(0, 0), Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		header.Typeflag, header.Size = tar.TypeReg, info.Size()
	case mode&fs.ModeSymlink != 0:
		header.Typeflag, header.Linkname = tar.TypeSymlink, "-"
	case mode&fs.ModeDevice != 0:
		header.Typeflag = tar.TypeChar
	default:
		header.Typeflag = tar.TypeFifo
	}
	if err := archive.WriteHeader(header); err != nil || header.Typeflag != tar.TypeReg {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return errors.Join(err, file.Close())
}
