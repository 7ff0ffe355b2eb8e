package config

// Keys returns the path of every key of the schema; the element of a list of mappings is "[]".
func Keys() []string { return paths((&loader{}).schema(defaults()), "") }

func paths(keys []key, at string) (all []string) {
	for _, k := range keys {
		path := joinKey(at, k.name)
		all = append(all, path)
		if k.many {
			path += "[]"
		}
		all = append(all, paths(k.below, path)...)
	}
	return all
}

// Expand replaces the references in s as in a file in the directory of name.
func Expand(name, s string, getenv func(string) (string, bool)) (text, problem string) {
	text, f := (&loader{file: name, getenv: getenv}).expand(s)
	if f != nil {
		return "", f.problem
	}
	return text, ""
}

var (
	Near         = near
	DurationText = durationText
)
