package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"
)

const customization = "../argocd/resource_customizations/hyperflow.dev/ShardJob"

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// judge runs the script as Argo CD does: a second's time, and of the libraries only these, as for a script that an
// administrator gives it.
func judge(t *testing.T, script string, job object) health {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, job))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returned %v, not a table", state.Get(-1))
	}
	return health{table.RawGetString("status").String(), table.RawGetString("message").String()}
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.NewTable()
		for _, inner := range value {
			table.Append(toLua(state, inner))
		}
		return table
	case object:
		table := state.NewTable()
		for key, inner := range value {
			table.RawSetString(key, toLua(state, inner))
		}
		return table
	}
	return lua.LNil
}

func TestHealthInArgoCD(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(customization, "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		Tests []struct {
			Health health `json:"healthStatus"`
			Input  string `json:"inputPath"`
		} `json:"tests"`
	}
	read(t, filepath.Join(customization, "health_test.yaml"), &table)
	seen := map[string]bool{}
	for _, test := range table.Tests {
		t.Run(filepath.Base(test.Input), func(t *testing.T) {
			var job object
			read(t, filepath.Join(customization, test.Input), &job)
			if got := judge(t, string(script), job); got != test.Health {
				t.Errorf("got %+v, want %+v", got, test.Health)
			}
		})
		seen[test.Health.Status] = true
	}
	for _, status := range []string{"Progressing", "Suspended", "Healthy", "Degraded"} {
		if !seen[status] {
			t.Errorf("no test expects %s", status)
		}
	}
}

// Stalled alone, and a failed job that became complete after a correction, are not in the files.
func TestHealthFollowsConditionsThatAreTrue(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(customization, "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	for want, conditions := range map[string]map[string]string{
		"Degraded":    {"Stalled": "True", "Reconciling": "False"},
		"Healthy":     {"Complete": "True", "Failed": "False", "Stalled": "False", "Reconciling": "False"},
		"Progressing": {"Complete": "False", "Failed": "Unknown", "Reconciling": "Unknown"},
	} {
		list := []any{}
		for name, status := range conditions {
			list = append(list, object{"type": name, "status": status, "message": ""})
		}
		job := object{
			"metadata": object{"generation": 3.0},
			"status":   object{"observedGeneration": 3.0, "conditions": list},
		}
		if got := judge(t, string(script), job); got.Status != want {
			t.Errorf("%v is %s, want %s", conditions, got.Status, want)
		}
	}
}

func TestSnippetForArgoCD(t *testing.T) {
	var snippet struct {
		Data map[string]string `json:"data"`
	}
	read(t, "../argocd/argocd-cm.yaml", &snippet)
	script, err := os.ReadFile(filepath.Join(customization, "health.lua"))
	if err != nil {
		t.Fatal(err)
	}
	if snippet.Data["resource.customizations.health.hyperflow.dev_ShardJob"] != string(script) {
		t.Error("argocd-cm.yaml has another script than health.lua: copy it there")
	}

	var ignored struct {
		Pointers []string `json:"jsonPointers"`
	}
	key := "resource.customizations.ignoreResourceUpdates.hyperflow.dev_ShardJob"
	if err := yaml.UnmarshalStrict([]byte(snippet.Data[key]), &ignored); err != nil {
		t.Fatal(err)
	}
	seen := func(name string) object {
		var job object
		read(t, filepath.Join(customization, "testdata", name+".yaml"), &job)
		// Argo CD never looks at this one.
		delete(job["metadata"].(object), "resourceVersion")
		for _, pointer := range ignored.Pointers {
			parent, parts := job, strings.Split(strings.TrimPrefix(pointer, "/"), "/")
			for ; len(parts) > 1 && parent != nil; parts = parts[1:] {
				parent, _ = parent[parts[0]].(object)
			}
			delete(parent, parts[0])
		}
		return job
	}
	if !reflect.DeepEqual(seen("running"), seen("running-further")) {
		t.Error("progress alone makes Argo CD look again")
	}
	if reflect.DeepEqual(seen("running"), seen("complete")) {
		t.Error("Argo CD does not see that a job has ended")
	}
}
