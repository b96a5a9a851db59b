package agent

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/jsonschema"
	"github.com/djangobridge/djangobridge/go-runtime/internal/tool"
	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// The catalog holds a folder per agent, named by its id:
//
//	instructions.md          what every agent is told that is given a task
//	answer.schema.json       what every answer of a model to a task has
//	conversation.schema.json the input of the task type agent.run, which every agent has
//	conversation.md          what every agent is told that takes part in a conversation
//	building.md              what an agent is told that builds
//	answer.tmpl              the answer to a task as a message of a conversation
//	<agent>/description.txt  for people
//	<agent>/instructions.md  what this agent is told
//	<agent>/defaults.yaml    optional: an engine.RunDefaults, for its runs that do not say
//	<agent>/team.txt         optional: the agents that it may give work to, one in a line
//	<agent>/<task type>/input.schema.json   its description is the task type's
//	<agent>/<task type>/instructions.md     what the agent is told for this task type
//	<agent>/<task type>/sample.tmpl         the answer without a model; see sample.go
//	<agent>/<task type>/answer.schema.json  optional: what its answers have besides
//	<agent>/<task type>/plan.md             optional: the agent builds, and how it plans before
//
//go:embed catalog
var catalogFiles embed.FS

const (
	instructionsFile       = "instructions.md"
	answerSchemaFile       = "answer.schema.json"
	conversationSchemaFile = "conversation.schema.json"
	conversationFile       = "conversation.md"
	buildingFile           = "building.md"
	answerTemplateFile     = "answer.tmpl"
)

func (r *Registry) loadCatalog() error {
	files, err := fs.Sub(catalogFiles, "catalog")
	if err != nil {
		return err
	}
	loader := catalogLoader{files: files, registry: r}
	if r.conversationInput, err = loader.schema(conversationSchemaFile); err != nil {
		return err
	}
	folders, err := loader.folders(".")
	if err != nil {
		return err
	}
	r.agents = make(map[string]*agent, len(folders))
	for _, id := range folders {
		if r.agents[id], err = loader.agent(id); err != nil {
			return fmt.Errorf("load agent %s: %w", id, err)
		}
	}
	return nil
}

type catalogLoader struct {
	files    fs.FS
	registry *Registry
}

func (l catalogLoader) agent(id string) (*agent, error) {
	description, err := l.text(path.Join(id, "description.txt"))
	if err != nil {
		return nil, err
	}
	names, err := l.folders(id)
	if err != nil {
		return nil, err
	}
	tasks := make(map[string]*taskType, len(names))
	for _, name := range names {
		if tasks[name], err = l.taskType(id, name); err != nil {
			return nil, fmt.Errorf("load task type %s: %w", name, err)
		}
	}
	talking, err := l.conversation(id, maps.Clone(tasks))
	if err != nil {
		return nil, fmt.Errorf("load conversation: %w", err)
	}
	tasks[conversationTask] = talking
	defaults, err := l.defaults(path.Join(id, "defaults.yaml"))
	if err != nil {
		return nil, err
	}
	return &agent{id: id, description: description, model: l.registry.provider.Model(), tasks: tasks, defaults: defaults}, nil
}

// defaults reads a file that there need not be.
func (l catalogLoader) defaults(file string) (engine.RunDefaults, error) {
	var defaults engine.RunDefaults
	raw, err := fs.ReadFile(l.files, file)
	if errors.Is(err, fs.ErrNotExist) {
		return defaults, nil
	}
	if err != nil {
		return defaults, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&defaults); err != nil && !errors.Is(err, io.EOF) {
		return defaults, fmt.Errorf("parse %s: %w", file, err)
	}
	return defaults, defaults.Check(file)
}

// conversation makes the task type with which an agent answers messages, and does
// the given ones of its own where a conversation asks for one.
func (l catalogLoader) conversation(agentID string, tasks map[string]*taskType) (*taskType, error) {
	input, err := l.schema(conversationSchemaFile)
	if err != nil {
		return nil, err
	}
	instructions, err := l.texts(conversationFile, path.Join(agentID, instructionsFile))
	if err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(l.files, answerTemplateFile)
	if err != nil {
		return nil, err
	}
	answer, err := parseAnswer(answerTemplateFile, string(text))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", answerTemplateFile, err)
	}
	talking := &conversation{
		loop:    loop{provider: l.registry.provider, instructions: instructions},
		agentID: agentID, tasks: tasks, message: answer,
	}
	team, err := l.team(agentID)
	if err != nil {
		return nil, err
	}
	if len(team) > 0 && l.registry.tooling.Runner != nil {
		talking.tools = &toolkit{registry: l.registry, agents: team}
	}
	return &taskType{name: conversationTask, input: input, check: talking.check, task: talking.run}, nil
}

func (l catalogLoader) taskType(agentID, name string) (*taskType, error) {
	folder := path.Join(agentID, name)
	input, err := l.schema(path.Join(folder, "input.schema.json"))
	if err != nil {
		return nil, err
	}
	answer, err := l.answerSchema(folder)
	if err != nil {
		return nil, err
	}
	instructions, err := l.texts(instructionsFile, path.Join(agentID, instructionsFile), path.Join(folder, instructionsFile))
	if err != nil {
		return nil, err
	}
	sample, err := parseSample(l.files, path.Join(folder, "sample.tmpl"))
	if err != nil {
		return nil, err
	}
	thinking := &thinker{
		loop: loop{
			provider: l.registry.provider, instructions: instructions, answer: answer, answerName: name,
			check: func(text string) *violation.Error { return checkFiles([]byte(text)) },
		},
		sample: sample.render,
	}
	if err := l.building(agentID, folder, &thinking.loop); err != nil {
		return nil, err
	}
	return &taskType{name: name, input: input, task: thinking.run}, nil
}

// building has a task type build that has a plan, where there is a workshop.
func (l catalogLoader) building(agentID, folder string, builds *loop) error {
	plan, err := l.text(path.Join(folder, "plan.md"))
	tooling := l.registry.tooling
	if errors.Is(err, fs.ErrNotExist) || tooling.Workshop == nil {
		return nil
	}
	if err != nil {
		return err
	}
	team, err := l.team(agentID)
	if err != nil {
		return err
	}
	told, err := l.text(buildingFile)
	if err != nil {
		return err
	}
	builds.plan, builds.build = plan, &builder{tooling.Workshop}
	builds.instructions += "\n\n" + told
	k := &toolkit{registry: l.registry, own: workspaceTools(tooling.Workshop), agents: team}
	k.set, err = tool.NewSet(k.own...)
	builds.tools = k
	return err
}

// team are the agents that one may give work to.
func (l catalogLoader) team(agentID string) ([]string, error) {
	text, err := l.text(path.Join(agentID, "team.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(text), err
}

// answerSchema is one schema of what every answer has and what the answers of a
// task type have besides: providers take no references between schemas.
func (l catalogLoader) answerSchema(folder string) (*jsonschema.Schema, error) {
	common, err := fs.ReadFile(l.files, answerSchemaFile)
	if err != nil {
		return nil, err
	}
	file := path.Join(folder, answerSchemaFile)
	own, err := fs.ReadFile(l.files, file)
	if errors.Is(err, fs.ErrNotExist) {
		return newSchema(answerSchemaFile, common)
	}
	if err != nil {
		return nil, err
	}
	merged, err := mergeSchemas(common, own)
	if err != nil {
		return nil, fmt.Errorf("merge %s: %w", file, err)
	}
	return newSchema(file, merged)
}

func (l catalogLoader) schema(file string) (*jsonschema.Schema, error) {
	raw, err := fs.ReadFile(l.files, file)
	if err != nil {
		return nil, err
	}
	return newSchema(file, raw)
}

// texts joins files as paragraphs.
func (l catalogLoader) texts(files ...string) (string, error) {
	texts := make([]string, len(files))
	for i, file := range files {
		var err error
		if texts[i], err = l.text(file); err != nil {
			return "", err
		}
	}
	return strings.Join(texts, "\n\n"), nil
}

func (l catalogLoader) text(file string) (string, error) {
	raw, err := fs.ReadFile(l.files, file)
	return strings.TrimSpace(string(raw)), err
}

// folders returns the names of the folders in a folder, sorted.
func (l catalogLoader) folders(folder string) ([]string, error) {
	entries, err := fs.ReadDir(l.files, folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}
