package config

import "strings"

// near is the one of known that name was probably meant to be, or "".
func near(name string, known []string) string {
	const longest = 40 // no known name is longer, and the distance costs the product of the lengths
	if len(name) > longest {
		return ""
	}
	plain := strings.NewReplacer("_", "", "-", "", " ", "")
	folded := plain.Replace(strings.ToLower(name))
	best, least := "", 1+len(folded)/4
	for _, k := range known {
		if d := distance(folded, plain.Replace(strings.ToLower(k))); d < least || d == least && best == "" {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete, replace or swap with their neighbour to get from a to b (optimal
// string alignment, a restricted Damerau-Levenshtein distance).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
