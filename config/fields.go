package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// field is what the decoder knows of a struct's field, from its tags.
type field struct {
	index                            []int // for reflect.Value.FieldByIndex
	name                             string
	typ                              reflect.Type
	required, short, single, inlined bool
	def, or, missing, block          string
	enum                             []string
	least, greatest                  int64 // of a duration or size; bounds says them in words
	bounds                           string
	keys                             *regexp.Regexp
}

// fields are those of every struct of the format, in their order, and defaults its
// values before anything is decoded. Neither changes.
var (
	fields   = make(map[reflect.Type][]field)
	defaults = make(map[reflect.Type]reflect.Value)
)

func init() { learn(reflect.TypeFor[file]()) }

// learn reads the tags of a type, and of all types below it.
func learn(t reflect.Type) {
	if _, scalar := scalars[t]; scalar || fields[t] != nil {
		return
	}
	if t.Kind() != reflect.Struct {
		learn(t.Elem())
		return
	}
	value := reflect.New(t).Elem()
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		learn(sf.Type)
		name, opts, _ := strings.Cut(tag, ",")
		if opts == "inline" {
			for _, f := range fields[sf.Type] {
				f.index, f.inlined = append([]int{i}, f.index...), true
				fields[t] = append(fields[t], f)
			}
			value.Field(i).Set(defaults[sf.Type])
			continue
		}
		options := strings.Split(opts, ",")
		f := field{
			index: []int{i}, name: name, typ: sf.Type, def: sf.Tag.Get("default"), or: sf.Tag.Get("or"), missing: sf.Tag.Get("missing"), block: sf.Tag.Get("block"),
			required: slices.Contains(options, "required"), short: slices.Contains(options, "short"), single: slices.Contains(options, "single"),
			enum: strings.Fields(sf.Tag.Get("enum")),
		}
		f.setBounds(sf.Tag.Get("range"))
		if k := sf.Tag.Get("keys"); k != "" {
			f.keys = regexp.MustCompile(k)
		}
		fields[t] = append(fields[t], f)
		if d, nested := defaults[sf.Type]; nested {
			value.Field(i).Set(d)
		} else if f.def != "" {
			setDefault(value.Field(i), f, f.def)
		}
	}
	defaults[t] = value
}

// setBounds reads a range tag. A duration without one is from 1ms to 24h.
func (f *field) setBounds(tag string) {
	if tag == "" && f.typ == durationType {
		tag = "1ms 24h"
	}
	if tag == "" {
		return
	}
	least, greatest, _ := strings.Cut(tag, " ")
	unbounded := field{}
	f.bounds = fmt.Sprintf("from %s to %s", least, greatest)
	f.least = mustParse(f.typ, least, unbounded).Int()
	f.greatest = mustParse(f.typ, greatest, unbounded).Int()
}

func setDefault(v reflect.Value, f field, text string) {
	t := v.Type()
	if _, scalar := scalars[t]; scalar {
		v.Set(mustParse(t, text, f))
		return
	}
	if t.Kind() == reflect.Slice {
		for word := range strings.FieldsSeq(text) {
			e := reflect.New(t.Elem()).Elem()
			setDefault(e, f, word)
			v.Set(reflect.Append(v, e))
		}
		return
	}
	v.Set(defaults[t])
	for _, sf := range fields[t] {
		if sf.short {
			setDefault(v.FieldByIndex(sf.index), sf, text)
		}
	}
}

func mustParse(t reflect.Type, text string, f field) reflect.Value {
	v, reason := scalars[t].parse(text, f)
	if reason != "" {
		panic(fmt.Sprintf("config: %s: %q: %s", f.name, text, reason))
	}
	return reflect.ValueOf(v).Convert(t)
}

// defaultOf is a struct of the format before anything is decoded. Its lists are shared,
// so they must not be changed.
func defaultOf[T any]() T {
	v, _ := reflect.TypeAssert[T](defaults[reflect.TypeFor[T]()])
	return v
}
