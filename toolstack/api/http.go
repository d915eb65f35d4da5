package api

import "strings"

// HTTPAction is one of the streams served beside the messages, or a use of one
// that needs a role of its own, such as the console of a host. Its permission
// is named "http/" and its name.
type HTTPAction struct {
	Name, Method, Path string
	Role               string // the least that may use it
	Checked            bool   // before the handler runs; else the handler asks itself
}

// Permission is the name roles know the action by.
func (a *HTTPAction) Permission() string { return "http/" + strings.ToLower(a.Name) }

// HTTPActions returns all actions. The slice is shared and must not be changed.
func HTTPActions() []HTTPAction { return httpActions[:] }

// FindHTTPAction returns the action a handler for a method and path is, or nil.
func FindHTTPAction(method, path string) *HTTPAction {
	for i := range httpActions {
		if a := &httpActions[i]; a.Method == method && a.Path == path && path != "" {
			return a
		}
	}
	return nil
}
