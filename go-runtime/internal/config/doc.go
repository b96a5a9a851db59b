// Package config reads the settings of the runtime from flags, the environment
// and a YAML file, and says every mistake in them at once.
//
// A setting has one name everywhere: the flag --data-dir is AGENT_RUNTIME_DATA_DIR
// in the environment and data-dir in the file. A flag goes before the
// environment, the environment before the file, the file before the default.
package config
