package graph

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
)

// Status says how a thread stands.
type Status string

// The states of a thread.
const (
	// Running threads have tasks to do; so have those whose runner died.
	Running Status = "running"
	// Waiting threads have questions open.
	Waiting Status = "waiting"
	// Done threads have no tasks left; a new input begins with the state that they have.
	Done Status = "done"
	// Failed threads have a task whose node failed; running them again repeats it alone.
	Failed Status = "failed"
)

// Task is a call of a node in a step.
type Task struct {
	// ID is the same whenever the step is done again.
	ID    string `json:"id"`
	Node  string `json:"node"`
	Input any    `json:"input,omitempty"`
}

func taskID(thread string, step int, node string, place int) string {
	const length = 8
	sum := sha256.Sum256([]byte(thread + "\x00" + strconv.Itoa(step) + "\x00" + node + "\x00" + strconv.Itoa(place)))
	return hex.EncodeToString(sum[:length])
}

// Checkpoint is a thread between two steps, or in one that waits or failed. It is JSON,
// so that others can read it.
type Checkpoint struct {
	// Revision is the saver's name for it, which the next one is saved behind; 0: none was saved.
	Revision uint64 `json:"-"`
	Status   Status `json:"status"`
	// Step is how many steps of the thread are done.
	Step  int   `json:"step"`
	State State `json:"state,omitempty"`
	// Folded is what was folded into the state since the checkpoint before it, by steps:
	// a saver may keep it in the place of the state, and have Replay make that of it.
	Folded [][]Update `json:"folded,omitempty"`
	// Tasks are those of the step to be done.
	Tasks []Task `json:"tasks,omitempty"`
	// Written is what the tasks of this step that have returned write, by task.
	Written map[string]Command `json:"written,omitempty"`
	// Interrupts are the questions that are open, in the order of the tasks.
	Interrupts []Interrupt `json:"interrupts,omitempty"`
	// Answers are those that tasks of this step have got, in the order of the questions.
	Answers map[string][]any `json:"answers,omitempty"`
	// Below are the answers that subgraphs of tasks have got, by task and by question.
	Below map[string]map[string]any `json:"below,omitempty"`
	// Arrived are the nodes that joins have seen, by the place of the join.
	Arrived map[int][]string `json:"arrived,omitempty"`
	// Error says why a Failed thread failed.
	Error string `json:"error,omitempty"`
}

// Saver keeps the checkpoints of threads.
type Saver interface {
	// Load returns the latest checkpoint of a thread of a graph; nil: it has none.
	Load(ctx context.Context, g *Graph, thread string) (*Checkpoint, error)
	// Save keeps a checkpoint as the thread's latest, and sets its Revision. It returns
	// ErrConflict when the one with that Revision is not the latest any more. The
	// checkpoint is the caller's again afterwards, who goes on to change it.
	Save(ctx context.Context, thread string, c *Checkpoint) error
}

// Memory keeps checkpoints for as long as the process lives. The zero value is ready.
type Memory struct {
	mu      sync.Mutex
	threads map[string][][]byte
}

// Load implements Saver.
func (m *Memory) Load(_ context.Context, _ *Graph, thread string) (*Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	history := m.threads[thread]
	if len(history) == 0 {
		return nil, nil
	}
	return DecodeCheckpoint(history[len(history)-1], uint64(len(history)))
}

// Save implements Saver.
func (m *Memory) Save(_ context.Context, thread string, c *Checkpoint) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode checkpoint of thread %s: %w", thread, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if uint64(len(m.threads[thread])) != c.Revision {
		return ErrConflict
	}
	if m.threads == nil {
		m.threads = map[string][][]byte{}
	}
	m.threads[thread] = append(m.threads[thread], text)
	c.Revision++
	return nil
}

// History returns all checkpoints of a thread, oldest first.
func (m *Memory) History(thread string) ([]*Checkpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	history := make([]*Checkpoint, 0, len(m.threads[thread]))
	for i, text := range m.threads[thread] {
		c, err := DecodeCheckpoint(text, uint64(i)+1)
		if err != nil {
			return nil, err
		}
		history = append(history, c)
	}
	return history, nil
}

// DecodeCheckpoint reads a checkpoint that was written as JSON, and gives it its revision.
func DecodeCheckpoint(text []byte, revision uint64) (*Checkpoint, error) {
	c := &Checkpoint{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("decode checkpoint %d: %w", revision, err)
	}
	for _, command := range c.Written {
		restoreOverwrites(command.Update)
	}
	for _, step := range c.Folded {
		for _, update := range step {
			restoreOverwrites(update.Writes)
		}
	}
	if c.State == nil {
		c.State = State{}
	}
	c.Revision = revision
	return c, nil
}

func restoreOverwrites(update State) {
	for name, value := range update {
		if object, isObject := value.(map[string]any); isObject && len(object) == 1 {
			if replaced, isOverwrite := object[overwriteKey]; isOverwrite {
				update[name] = Overwrite{replaced}
			}
		}
	}
}

// Update is what a task wrote.
type Update struct {
	Node   string `json:"node"`
	Writes State  `json:"writes,omitempty"`
}

// Replay returns the state that a checkpoint's Folded makes of the one before it.
func (g *Graph) Replay(state State, folded [][]Update) (State, error) {
	for _, step := range folded {
		next, err := g.fold(state, step)
		if err != nil {
			return nil, err
		}
		state = next
	}
	return state, nil
}
