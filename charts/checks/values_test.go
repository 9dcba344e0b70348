package main

import (
	"fmt"
	"slices"
	"testing"
)

// Every value is described, no other is taken, and the schema knows none that is not there.
func TestSchemasOfValues(t *testing.T) {
	for _, chart := range []string{"hyperflow", "hyperflow-crds"} {
		var schema, values object
		read(t, "../"+chart+"/values.schema.json", &schema)
		read(t, "../"+chart+"/values.yaml", &values)
		// Helm's own, for charts that hold this one.
		values["global"] = object{}
		for _, wrong := range compare(schema, schema, values, "") {
			t.Errorf("%s: %s", chart, wrong)
		}
	}
}

// compare returns what is wrong with the part of the schema that is for this part of the values.
func compare(root, schema object, value any, path string) (wrong []string) {
	schema = resolved(root, schema)
	if _, described := schema["description"]; !described && path != "" {
		wrong = append(wrong, path+" has no description")
	}
	properties, closed := schema["properties"].(object)
	if !closed {
		return wrong
	}
	if schema["additionalProperties"] != false {
		wrong = append(wrong, path+" takes values that it does not know")
	}
	known, _ := value.(object)
	for key := range known {
		if _, ok := properties[key]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s/%s is not in the schema", path, key))
		}
	}
	for key, inner := range properties {
		_, given := known[key]
		// What lies deeper than the values' own objects is Kubernetes'.
		if isValue := len(known) > 0; isValue && !given {
			wrong = append(wrong, fmt.Sprintf("%s/%s is in the schema only", path, key))
		}
		wrong = append(wrong, compare(root, inner.(object), known[key], path+"/"+key)...)
	}
	slices.Sort(wrong)
	return wrong
}

// resolved follows the one form of reference that the schemas use; what stands beside it wins.
func resolved(root, schema object) object {
	merged := object{}
	parts, _ := schema["allOf"].([]any)
	for _, part := range parts {
		name := part.(object)["$ref"].(string)[len("#/definitions/"):]
		for key, value := range root["definitions"].(object)[name].(object) {
			merged[key] = value
		}
	}
	for key, value := range schema {
		merged[key] = value
	}
	if items, ok := merged["items"].(object); ok {
		// A list's entries are described one by one.
		if fields, ok := items["properties"]; ok {
			merged["properties"], merged["additionalProperties"] = fields, items["additionalProperties"]
		}
	}
	return merged
}
