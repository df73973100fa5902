package config

import (
	"slices"
	"testing"

	"github.com/moat-gateway/moat/gateway"
)

func TestStartersWorkAsTheyAre(t *testing.T) {
	if got, want := Starters(), []string{"app", "behind-proxy", "dev", "public-ai", "public-api", "users", "webhook"}; !slices.Equal(got, want) {
		t.Errorf("starters %v, want %v", got, want)
	}
	for _, name := range Starters() {
		t.Run(name, func(t *testing.T) {
			data, ok := Starter(name)
			if !ok {
				t.Fatal("not there")
			}
			l, err := Parse("moat.yaml", data, Options{Getenv: func(string) (string, bool) { return "the provider's key", true }})
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Warnings) > 0 {
				t.Errorf("warnings:\n%v", l.Warnings)
			}
			if err = validate(t, data); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			g, err := gateway.New(l.Gateway, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Tests) < 2 {
				t.Error("it has no tests to show how they are written")
			}
			for _, test := range l.Tests {
				if err = test.Run(g); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, ok := Starter("../doc.go"); ok {
		t.Error("a starter outside the directory")
	}
}
