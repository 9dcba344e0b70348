// Command checks writes the JSON schemas that kubeconform judges the charts by. There is no server to ask for them:
// Kubernetes' own are in its Go module, ours is in the definition of the resource.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// object is any JSON object.
type object = map[string]any

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: checks SWAGGER CRD OUTPUT-FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "checks: %v\n", err)
		os.Exit(1)
	}
}

func run(swagger, crd, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make the folder of the schemas: %w", err)
	}
	built, err := ofKubernetes(swagger)
	if err != nil {
		return err
	}
	ours, err := ofDefinition(crd)
	if err != nil {
		return err
	}
	for name, schema := range ours {
		built[name] = schema
	}
	for name, schema := range built {
		text, err := json.Marshal(schema)
		if err != nil {
			return fmt.Errorf("write schema %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name+".json"), text, 0o644); err != nil {
			return fmt.Errorf("write schema %s: %w", name, err)
		}
	}
	return nil
}

// ofKubernetes returns a schema for each kind of Kubernetes, with all that it refers to.
func ofKubernetes(path string) (map[string]object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read Kubernetes' API: %w", err)
	}
	var api struct {
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(text, &api); err != nil {
		return nil, fmt.Errorf("read Kubernetes' API: %w", err)
	}
	definitions := make(map[string]any, len(api.Definitions))
	for name, definition := range api.Definitions {
		definitions[name] = strict(definition)
	}
	// A number is a quantity as well: the API server takes both.
	definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = object{"type": []any{"string", "number"}}
	schemas := map[string]object{}
	for name, definition := range api.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, kind := range kinds {
			// Options of calls are of every group at once, and in no chart.
			if of, ok := kind.(object); ok && len(kinds) == 1 {
				needed := map[string]any{}
				reach(name, definitions, needed)
				schemas[fileName(of)] = object{"$ref": "#/definitions/" + name, "definitions": needed}
			}
		}
	}
	return schemas, nil
}

// reach collects the definition and all that it refers to.
func reach(name string, definitions, needed map[string]any) {
	if _, known := needed[name]; known {
		return
	}
	needed[name] = definitions[name]
	walk(definitions[name], func(inner object) {
		if ref, ok := inner["$ref"].(string); ok {
			reach(strings.TrimPrefix(ref, "#/definitions/"), definitions, needed)
		}
	})
}

func walk(value any, visit func(object)) {
	switch value := value.(type) {
	case object:
		visit(value)
		for _, inner := range value {
			walk(inner, visit)
		}
	case []any:
		for _, inner := range value {
			walk(inner, visit)
		}
	}
}

// fileName is what kubeconform looks for: {{.ResourceKind}}{{.KindSuffix}}.
func fileName(kind object) string {
	group, _, _ := strings.Cut(kind["group"].(string), ".")
	parts := []string{strings.ToLower(kind["kind"].(string)), group, kind["version"].(string)}
	if group == "" {
		parts = append(parts[:1], parts[2])
	}
	return strings.Join(parts, "-")
}

// ofDefinition returns a schema for each version of a custom resource.
func ofDefinition(path string) (map[string]object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the definition of the resource: %w", err)
	}
	var definition struct {
		Spec struct {
			Group string `json:"group"`
			Names struct {
				Kind string `json:"kind"`
			} `json:"names"`
			Versions []struct {
				Name   string `json:"name"`
				Schema struct {
					OpenAPI object `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &definition); err != nil {
		return nil, fmt.Errorf("read the definition of the resource %s: %w", path, err)
	}
	schemas := map[string]object{}
	for _, version := range definition.Spec.Versions {
		schema, ok := strict(version.Schema.OpenAPI).(object)
		if !ok {
			return nil, fmt.Errorf("%s: version %s has no schema", path, version.Name)
		}
		properties, ok := schema["properties"].(object)
		if !ok {
			return nil, fmt.Errorf("%s: version %s has no fields", path, version.Name)
		}
		for _, common := range []string{"apiVersion", "kind"} {
			properties[common] = object{"type": "string"}
		}
		kind := object{"group": definition.Spec.Group, "kind": definition.Spec.Names.Kind, "version": version.Name}
		schemas[fileName(kind)] = schema
	}
	return schemas, nil
}

// strict makes of an OpenAPI schema a JSON schema that knows every field: what is not named is not allowed, as it is for
// the API server when kubectl asks.
func strict(value any) any {
	switch value := value.(type) {
	case object:
		made := object{}
		for key, inner := range value {
			made[key] = strict(inner)
		}
		properties, hasFields := made["properties"].(object)
		_, open := made["additionalProperties"]
		if keep, _ := made["x-kubernetes-preserve-unknown-fields"].(bool); hasFields && len(properties) > 0 && !open && !keep {
			made["additionalProperties"] = false
		}
		if mixed, _ := made["x-kubernetes-int-or-string"].(bool); mixed || made["format"] == "int-or-string" {
			made["type"] = []any{"string", "integer"}
		} else if nullable, _ := made["nullable"].(bool); nullable {
			if kind, ok := made["type"].(string); ok {
				made["type"] = []any{kind, "null"}
			}
		}
		return made
	case []any:
		made := make([]any, 0, len(value))
		for _, inner := range value {
			made = append(made, strict(inner))
		}
		return made
	}
	return value
}
