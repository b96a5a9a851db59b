package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// The format of the server's block files, as nats-server 2.15 writes them: a
// block is a row of records
//
//	length(4) sequence(8) time(8) subject length(2) subject
//	[header length(4) header] data checksum(8)
//
// in little-endian order. The store's settings leave compression and
// encryption, which would change it, off.
const (
	blockHeader   = 22
	blockChecksum = 8
	blockSuffix   = ".blk"
	// blockIndex is the server's summary of a stream's blocks; without it the
	// server reads the blocks.
	blockIndex = "index.db"
	// longestRecord is above any record the server writes.
	longestRecord = 32 << 20

	lengthHasHeader  = 1 << 31
	sequenceErased   = 1 << 63 // a deleted record's place
	sequenceRemoved  = 1 << 62 // a note that another record was deleted
	sequenceFlagBits = sequenceErased | sequenceRemoved
)

// block is one block file.
type block struct {
	path  string
	index uint32
}

// blockRecord is one record in a block file.
type blockRecord struct {
	raw      []byte
	sequence uint64
	removal  bool // it says that sequence was deleted
}

// listBlocks returns a stream's blocks, oldest first.
func listBlocks(folder string) ([]block, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	var blocks []block
	for _, entry := range entries {
		number, ok := strings.CutSuffix(entry.Name(), blockSuffix)
		if !ok {
			continue
		}
		if index, err := strconv.ParseUint(number, 10, 32); err == nil {
			blocks = append(blocks, block{path: filepath.Join(folder, entry.Name()), index: uint32(index)})
		}
	}
	slices.SortFunc(blocks, func(a, b block) int { return int(a.index) - int(b.index) })
	return blocks, nil
}

// blockReader checks the records of one block.
type blockReader struct {
	hash *highwayhash.Digest64
}

func newBlockReader(stream string, index uint32) (*blockReader, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, index))
	hash, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return nil, fmt.Errorf("make the checksum of block %d: %w", index, err)
	}
	return &blockReader{hash: hash}, nil
}

// parse returns the record at the start of buf if there is an intact one with
// a sequence up to newest.
func (r *blockReader) parse(buf []byte, newest uint64) (blockRecord, bool) {
	if len(buf) < blockHeader+blockChecksum {
		return blockRecord{}, false
	}
	length := binary.LittleEndian.Uint32(buf)
	body := blockHeader + int(binary.LittleEndian.Uint16(buf[20:]))
	content := body
	if length&lengthHasHeader != 0 {
		content += 4
	}
	length &^= lengthHasHeader
	if length > longestRecord || int(length) > len(buf) || content+blockChecksum > int(length) {
		return blockRecord{}, false
	}
	sequence := binary.LittleEndian.Uint64(buf[4:])
	if sequence&^sequenceFlagBits > newest {
		return blockRecord{}, false
	}
	end := int(length) - blockChecksum
	if !bytes.Equal(r.checksum(buf[4:20], buf[blockHeader:body], buf[content:end]), buf[end:length]) {
		return blockRecord{}, false
	}
	return blockRecord{
		raw:      buf[:length],
		sequence: sequence &^ sequenceFlagBits,
		removal:  sequence&sequenceRemoved != 0,
	}, true
}

func (r *blockReader) checksum(parts ...[]byte) []byte {
	r.hash.Reset()
	for _, part := range parts {
		// A hash takes everything.
		_, _ = r.hash.Write(part)
	}
	return r.hash.Sum(nil)
}

// removalRecord makes the note that sequence was deleted. Alone in a block it
// makes the server go on above the sequence; the server itself does so when
// its index knows of more than its blocks.
func (r *blockReader) removalRecord(sequence uint64, at time.Time) []byte {
	raw := make([]byte, blockHeader, blockHeader+blockChecksum)
	binary.LittleEndian.PutUint32(raw, blockHeader+blockChecksum)
	binary.LittleEndian.PutUint64(raw[4:], sequence|sequenceRemoved)
	binary.LittleEndian.PutUint64(raw[12:], uint64(at.UnixNano()))
	return append(raw, r.checksum(raw[4:20])...)
}
