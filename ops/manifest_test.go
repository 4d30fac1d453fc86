package ops_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A manifest is the part of a pod that the documents show. Its keys are those of Kubernetes.
type manifest struct {
	Spec struct {
		Grace      int `yaml:"terminationGracePeriodSeconds"`
		Containers []struct {
			Name      string
			Resources struct{ Requests, Limits struct{ CPU, Memory string } }
			Lifecycle struct {
				PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
			}
			Readiness struct {
				GRPC   struct{ Port int }
				Period int `yaml:"periodSeconds"`
			} `yaml:"readinessProbe"`
			Liveness struct { // not the health service, which may say NOT_SERVING
				Socket   struct{ Port int } `yaml:"tcpSocket"`
				Period   int                `yaml:"periodSeconds"`
				Failures int                `yaml:"failureThreshold"`
			} `yaml:"livenessProbe"`
		}
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?\n)?```$")

// The YAML of the documents has keys of a pod, and time for the sleep before the stop and for a grace of 20 s.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range yamlBlock.FindAllSubmatch(page, -1) {
			found++
			var pod manifest
			dec := yaml.NewDecoder(bytes.NewReader(m[1]))
			dec.KnownFields(true)
			if err := dec.Decode(&pod); err != nil || len(pod.Spec.Containers) != 1 {
				t.Errorf("%s: got %v and %+v, want the spec of a pod with a container", name, err, pod)
				continue
			}
			const grace = 20 // seconds, as in README.md
			if sleep := pod.Spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds; sleep == 0 || pod.Spec.Grace <= sleep+grace {
				t.Errorf("%s: got %d s to stop, want more than the sleep of %d s and the grace of %d s", name, pod.Spec.Grace, sleep, grace)
			}
		}
	}
	if found == 0 {
		t.Error("blocks of YAML in docs: got none, want that of kubernetes.md")
	}
}
