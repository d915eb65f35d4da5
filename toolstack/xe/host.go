package xe

import (
	"context"
)

// hostCallPlugin runs a plugin of the host and prints what it answers.
func (s *session) hostCallPlugin(ctx context.Context) error {
	uuid, _ := s.Params.Get("host-uuid")
	plugin, _ := s.Params.Get("plugin")
	fn, _ := s.Params.Get("fn")
	r, err := s.byUUID(ctx, "host", uuid)
	if err != nil {
		return err
	}
	var answer string
	if err := s.api.Call(ctx, "host.call_plugin", &answer, r.ref, plugin, fn, s.Params.Map("args")); err != nil {
		return err
	}
	return s.line(answer)
}

func (s *session) hostDisable(ctx context.Context) error {
	return s.eachHost(ctx, "host.disable")
}

func (s *session) hostEnable(ctx context.Context) error {
	return s.eachHost(ctx, "host.enable")
}

func (s *session) hostShutdown(ctx context.Context) error {
	return s.eachHost(ctx, "host.shutdown")
}

func (s *session) hostReboot(ctx context.Context) error {
	return s.eachHost(ctx, "host.reboot")
}

func (s *session) eachHost(ctx context.Context, method string) error {
	return s.each(ctx, "host", func(r record) error { return s.api.Call(ctx, method, nil, r.ref) })
}
