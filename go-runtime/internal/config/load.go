package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// fileSetting names the configuration file; it is a flag and an environment
// variable, but no key of the file.
const fileSetting = "config"

// Mistake is one thing wrong with the configuration.
type Mistake struct {
	// Setting is the name of the setting.
	Setting string
	// Value is what it was given; empty for secrets.
	Value string
	// Origin is where that came from, such as "flag --listen" or "default".
	Origin string
	// Problem says what is wrong and what would be right.
	Problem string
}

func (m Mistake) String() string {
	if m.Value == "" {
		return fmt.Sprintf("%s (%s): %s", m.Setting, m.Origin, m.Problem)
	}
	return fmt.Sprintf("%s = %q (%s): %s", m.Setting, m.Value, m.Origin, m.Problem)
}

// Error is every mistake that was found.
type Error struct{ Mistakes []Mistake }

func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Mistakes))
	for _, m := range e.Mistakes {
		lines = append(lines, m.String())
	}
	return strings.Join(lines, "\n")
}

// about reports whether one of the mistakes is a setting's.
func (e *Error) about(setting string) bool {
	return slices.ContainsFunc(e.Mistakes, func(m Mistake) bool { return m.Setting == setting })
}

// Flags returns the flags of every setting, for Load.
func Flags(name string) *pflag.FlagSet {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.String(fileSetting, "", "YAML `file` of settings, by the names of these flags (env "+envPrefix+"CONFIG)")
	var unused Config
	for _, s := range settings(&unused) {
		if s.secret {
			continue
		}
		env := s.env()
		if s.alias != "" {
			env += " or " + s.alias
		}
		flags.String(s.name, s.fallback, s.help+" (env "+env+")")
	}
	return flags
}

// Load reads the configuration: flags are those of Flags, parsed; getenv is os.Getenv.
// An environment variable that is empty counts as not set. The error is an *Error.
//
// Load also looks at the files and folders that the configuration names, and
// leaves nothing behind there.
func Load(flags *pflag.FlagSet, getenv func(string) string) (Config, error) {
	var problems Error
	file := readFile(flags, getenv, &problems)

	c := Config{origins: map[string]string{}}
	for _, s := range settings(&c) {
		raw, origin := s.fallback, "default"
		if text, found := file.values[s.name]; found {
			raw, origin = text, "file "+file.path
			delete(file.values, s.name)
		}
		for _, env := range []string{s.alias, s.env()} {
			if text := getenv(env); env != "" && text != "" {
				raw, origin = text, "environment "+env
			}
		}
		if !s.secret && flags.Changed(s.name) {
			raw, origin = flags.Lookup(s.name).Value.String(), "flag --"+s.name
		}
		c.origins[s.name] = origin
		if err := s.value.Set(raw); err != nil {
			if s.secret || strings.Contains(raw, "@") {
				raw = ""
			}
			problems.Mistakes = append(problems.Mistakes, Mistake{s.name, raw, origin, err.Error()})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(file.values)) {
		problems.Mistakes = append(problems.Mistakes,
			Mistake{key, file.values[key], "file " + file.path, "there is no such setting"})
	}
	// A setting that could not be read seems empty: what follows from that is no mistake of its own.
	for _, mistake := range slices.Concat(c.contradictions(), c.badFiles(getenv)) {
		if !problems.about(mistake.Setting) {
			problems.Mistakes = append(problems.Mistakes, mistake)
		}
	}
	if len(problems.Mistakes) > 0 {
		return Config{}, &problems
	}
	return c, nil
}

// UnknownVariables returns the variables of an environment (as os.Environ gives
// it) that look like settings and are none, such as mistyped ones.
func UnknownVariables(environ []string) []string {
	var ignored Config
	known := map[string]bool{envPrefix + "CONFIG": true, envPrefix + "BINARY": true}
	for _, s := range settings(&ignored) {
		known[s.env()] = true
	}
	var unknown []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && !known[name] && !setByKubernetes(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// setByKubernetes reports whether a variable is one that Kubernetes sets in
// every container where there is a service called agent-runtime.
func setByKubernetes(name string) bool {
	return strings.HasPrefix(name, envPrefix+"SERVICE_") || strings.HasPrefix(name, envPrefix+"PORT")
}

// settingsFile is what a configuration file says: the text of each value, by its key.
type settingsFile struct {
	path   string
	values map[string]string
}

func readFile(flags *pflag.FlagSet, getenv func(string) string, problems *Error) settingsFile {
	path, origin := getenv(envPrefix+"CONFIG"), "environment "+envPrefix+"CONFIG"
	if flags.Changed(fileSetting) {
		path, origin = flags.Lookup(fileSetting).Value.String(), "flag --"+fileSetting
	}
	file := settingsFile{path: path, values: map[string]string{}}
	if path == "" {
		return file
	}
	mistake := func(problem string) {
		problems.Mistakes = append(problems.Mistakes, Mistake{fileSetting, path, origin, problem})
	}
	data, err := os.ReadFile(path)
	if err != nil {
		mistake(err.Error())
		return file
	}
	var nodes map[string]yaml.Node
	if err := yaml.Unmarshal(data, &nodes); err != nil {
		mistake("want YAML, a line `name: value` for each setting: " + err.Error())
		return file
	}
	for key, node := range nodes {
		if node.Kind != yaml.ScalarNode {
			problems.Mistakes = append(problems.Mistakes, Mistake{
				key, "", fmt.Sprintf("file %s line %d", path, node.Line), "want one value, not a list or a map",
			})
			continue
		}
		if node.Tag == "!!null" {
			node.Value = ""
		}
		file.values[key] = node.Value
	}
	return file
}

// WriteTo writes the settings in effect as a configuration file, each with
// where it came from, secrets left out.
func (c Config) WriteTo(w io.Writer) (int64, error) {
	var text strings.Builder
	for _, s := range settings(&c) {
		shown := s.value.String()
		// One that comes from a file is shown by the file's setting.
		if s.secret && shown != "" && c.origins[s.name] == "default" {
			continue
		}
		if s.secret && shown != "" {
			fmt.Fprintf(&text, "# %s is set (%s)\n", s.name, c.origins[s.name])
			continue
		}
		fmt.Fprintf(&text, "%s: %s # %s\n", s.name, strconv.Quote(shown), c.origins[s.name])
	}
	n, err := io.WriteString(w, text.String())
	return int64(n), err
}
