package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// sealedSuffix ends the name of a stream's note of its blocks.
const sealedSuffix = ".blocks"

// sealedNote is what the blocks of a stream looked like. It finds a block that
// was cut off between two records where removed records make gaps legal: the
// server never makes a full block shorter in place, it puts another file there
// when it drops removed records.
type sealedNote struct {
	// Clean says that the server had stopped when the note was made, so
	// nothing may have become shorter since.
	Clean bool `json:"clean"`
	// Issued is the stream's mark then: an older version of this program that
	// used the store since has moved it and left this note behind.
	Issued uint64                 `json:"issued"`
	Blocks map[uint32]sealedBlock `json:"blocks"`
}

// sealedBlock is one block that nothing is appended to any more.
type sealedBlock struct {
	Size int64 `json:"size"`
	// File tells the block's file from another one put in its place; empty
	// when the file system does not say.
	File string `json:"file"`
}

func sealedPath(dataDir, stream string) string {
	return filepath.Join(dataDir, markFolder, stream+sealedSuffix)
}

// readSealed returns an empty note when there is none to go by.
func readSealed(dataDir, stream string) (sealedNote, error) {
	var note sealedNote
	err := readNote(sealedPath(dataDir, stream), &note)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBadNote) {
		return sealedNote{}, nil
	}
	return note, err
}

// noteSealed notes the blocks of a stream as they are. While the server runs
// it appends to the last one, which is left out.
func noteSealed(dataDir, stream string, clean, durable bool) error {
	blocks, err := listBlocks(blocksFolder(dataDir, stream))
	if err != nil {
		return err
	}
	if !clean && len(blocks) > 0 {
		blocks = blocks[:len(blocks)-1]
	}
	note := sealedNote{Clean: clean, Blocks: make(map[uint32]sealedBlock, len(blocks))}
	if clean {
		m, err := readMark(dataDir, stream)
		if err != nil {
			return err
		}
		note.Issued = m.issued
	}
	for _, b := range blocks {
		size, file, err := identify(b.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the server removed it meanwhile
		}
		if err != nil {
			return fmt.Errorf("look at block %d: %w", b.index, err)
		}
		note.Blocks[b.index] = sealedBlock{Size: size, File: file}
	}
	known, err := readSealed(dataDir, stream)
	if err == nil && known.Clean == note.Clean && known.Issued == note.Issued && maps.Equal(known.Blocks, note.Blocks) {
		return nil
	}
	return writeNote(sealedPath(dataDir, stream), note, durable)
}

// isCut reports whether a block of this size lacks its end.
func (n sealedNote) isCut(b block, size int64) (bool, error) {
	known, ok := n.Blocks[b.index]
	if !ok || size >= known.Size {
		return false, nil
	}
	if n.Clean {
		return true, nil
	}
	_, file, err := identify(b.path)
	return file != "" && file == known.File, err
}

// isGone reports whether a block between two others is gone that the server
// had not removed.
func (n sealedNote) isGone(after, before uint32) bool {
	if !n.Clean {
		return false
	}
	for index := range n.Blocks {
		if after < index && index < before {
			return true
		}
	}
	return false
}

// noteAllSealed notes the blocks of every stream.
func noteAllSealed(dataDir string, clean, durable bool) error {
	streams, err := listStreams(dataDir)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		err := noteSealed(dataDir, stream, clean, durable)
		if clean && (errors.Is(err, errNoMark) || errors.Is(err, errBadMark)) {
			continue // nobody opened it
		}
		if err != nil {
			return fmt.Errorf("note the blocks of stream %s: %w", stream, err)
		}
	}
	return nil
}

// listStreams returns the streams in a store, by the names of their folders.
func listStreams(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(streamsFolder(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); entry.IsDir() && name[0] != '.' {
			names = append(names, name)
		}
	}
	return names, nil
}
