package config

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// maxSuggestions is how many faults come with suggestions. They cost time, and nobody
// reads more.
const maxSuggestions = 200

// didYouMean is the function of that name, until there are too many faults.
func (r *report) didYouMean(word string, known iter.Seq[string]) string {
	if len(r.faults) > maxSuggestions {
		return ""
	}
	return DidYouMean(word, known)
}

// DidYouMean is "; did you mean …?" with the known word that is nearest to word, or ""
// if none is near.
func DidYouMean(word string, known iter.Seq[string]) string {
	best, least := "", 3
	if len(word) < 4 {
		least = 2
	}
	for k := range known {
		d := distance(plain(word), plain(k))
		if d == 2 && len(word) < 6 && !strings.HasPrefix(k, word[:min(len(word), 1)]) {
			continue // two letters of a short word make another one of it, such as zone of money
		}
		if d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// plain is a name as it sounds: case, "-" and "_" are often mistaken.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' {
			return -1
		}
		return r
	}, strings.ToLower(s[:min(len(s), maxValue)]))
}

// distance is the Levenshtein distance, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// oneOf lists words for a reason: a, b or c.
func oneOf(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// keys returns the names in a map, sorted.
func keys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
