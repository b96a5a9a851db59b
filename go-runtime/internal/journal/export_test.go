package journal

import "math"

// BlindToSpace makes the journal believe that its disk has room.
func (j *Journal) BlindToSpace() {
	j.space.checked.Store(math.MaxInt64 / 2)
	for p := range j.space.room {
		j.space.room[p].Store(math.MaxInt64 / 2)
	}
}

// BreakSync makes every sync from now on fail.
func (j *Journal) BreakSync() error {
	store, _ := j.backend.(*embedded)
	return store.folder.Close()
}

// NoteBlocksOfRunningServer makes the notes of a stopped store look as a kill
// leaves them.
func NoteBlocksOfRunningServer(dataDir string) error { return noteAllSealed(dataDir, false, true) }
