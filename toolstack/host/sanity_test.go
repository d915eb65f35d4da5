package host_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
)

// record gets a record as a client does.
func (s *stack) record(method string, ref any) map[string]any {
	s.T.Helper()
	var r map[string]any
	s.Must(&r, method, ref)
	return r
}

// at looks into a record by the path a client would use: "cpu_info.speed".
func at(r map[string]any, path string) any {
	field, key, nested := strings.Cut(path, ".")
	if !nested {
		return r[field]
	}
	m, _ := r[field].(map[string]any)
	return m[key]
}

// Shapes that clients give the values they read.
var (
	uuid     = matches(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	ref      = matches(`^OpaqueRef:[0-9a-f-]{36}$`)
	null     = matches(`^OpaqueRef:NULL$`)
	name     = matches(`^[^\x00-\x1f]+$`)
	natural  = matches(`^[1-9][0-9]*$`)
	whole    = matches(`^[0-9]+$`)
	decimal  = matches(`^[0-9]+\.[0-9]+$`)
	boolean  = matches(`^(true|false)$`)
	version  = matches(`^[0-9]+(\.[0-9]+)+$`)
	hexWords = matches(`^[0-9a-f]{8}(-[0-9a-f]{8})+$`)
	address  = matches(`^[0-9]+(\.[0-9]+){3}$`)
	mac      = matches(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
)

func matches(pattern string) func(any) bool {
	re := regexp.MustCompile(pattern)
	return func(v any) bool {
		text, ok := v.(string)
		return ok && re.MatchString(text)
	}
}

func positive(v any) bool { n, ok := v.(float64); return ok && n > 0 && n == float64(int64(n)) }
func isTrue(v any) bool   { return v == true }
func isFalse(v any) bool  { return v == false }
func full(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return false
}

func date(v any) bool {
	text, _ := v.(string)
	_, err := time.Parse(api.TimeLayout, text)
	return err == nil
}

func recent(v any) bool {
	text, _ := v.(string)
	at, err := time.Parse(api.TimeLayout, text)
	return err == nil && time.Since(at) < time.Hour
}

func is(want string) func(any) bool { return func(v any) bool { return fmt.Sprint(v) == want } }

type fields map[string]func(any) bool

func (s *stack) sane(class string, r map[string]any, want fields) {
	s.T.Helper()
	for path, ok := range want {
		if v := at(r, path); !ok(v) {
			s.T.Errorf("%s.%s is %#v", class, path, v)
		}
	}
}

// TestRecordsAreSensible: what clients parse, compare or show is there and has
// the shape they expect; no number is an empty text.
func TestRecordsAreSensible(t *testing.T) {
	s := newStack(t)
	host := s.record("host.get_record", s.m.Ref())
	s.sane("host", host, fields{
		"uuid": uuid, "name_label": name, "hostname": name, "address": address, "enabled": isTrue,
		"API_version_major": is("2"), "API_version_minor": is("23"), "API_version_vendor": name,
		"software_version.product_version": version, "software_version.platform_version": version,
		"software_version.xapi": version, "software_version.db_schema": version, "software_version.product_brand": name,
		"software_version.platform_name": name, "software_version.build_number": name, "software_version.network_backend": is("bridge"),
		"cpu_info.cpu_count": natural, "cpu_info.socket_count": natural, "cpu_info.threads_per_core": natural,
		"cpu_info.speed": decimal, "cpu_info.family": whole, "cpu_info.model": whole, "cpu_info.stepping": whole,
		"cpu_info.vendor": name, "cpu_info.modelname": name, "cpu_info.flags": name, "cpu_info.features": hexWords,
		"cpu_info.features_hvm": hexWords, "cpu_info.features_pv": hexWords, "cpu_info.features_hvm_host": hexWords,
		"metrics": ref, "control_domain": ref, "host_CPUs": full, "PIFs": full, "capabilities": full,
		"license_params.expiry": date, "license_params.sku_type": name, "license_params.sockets": natural,
		"license_params.restrict_pooling": is("false"), "license_params.enable_xha": is("true"),
		"license_server.address": name, "license_server.port": natural, "edition": is("free"), "editions": full,
		"bios_strings.bios-vendor": name, "bios_strings.system-manufacturer": name, "chipset_info.iommu": boolean,
		"virtual_hardware_platform_versions": full, "sched_policy": name, "timezone": is("UTC"), "ntp_mode": is("DHCP"),
		"suspend_image_sr": null, "crash_dump_sr": null, "local_cache_sr": null, "https_only": isTrue, "ssl_legacy": isFalse,
		"tls_verification_enabled": isTrue, "ssh_enabled": isFalse, "display": is("enabled"), "allowed_operations": full,
	})
	s.sane("host_metrics", s.record("host_metrics.get_record", host["metrics"]), fields{
		"uuid": uuid, "live": isTrue, "memory_total": positive, "memory_free": positive, "last_updated": recent,
	})
	for _, cpu := range host["host_CPUs"].([]any) {
		s.sane("host_cpu", s.record("host_cpu.get_record", cpu), fields{
			"uuid": uuid, "host": is(s.m.Ref().String()), "speed": positive, "stepping": whole, "vendor": name,
			"modelname": name, "flags": name, "features": hexWords,
		})
	}
	pif := s.record("PIF.get_record", host["PIFs"].([]any)[0])
	s.sane("PIF", pif, fields{
		"uuid": uuid, "device": name, "MAC": mac, "MTU": positive, "VLAN": is("-1"), "IP": address, "netmask": address,
		"gateway": address, "DNS": address, "management": isTrue, "currently_attached": isTrue, "physical": isTrue,
		"primary_address_type": is("IPv4"), "network": ref, "metrics": ref, "bond_slave_of": null, "VLAN_master_of": null,
	})
	s.sane("PIF_metrics", s.record("PIF_metrics.get_record", pif["metrics"]), fields{"uuid": uuid, "carrier": isTrue, "speed": positive, "last_updated": recent})
	s.sane("network", s.record("network.get_record", pif["network"]), fields{"uuid": uuid, "name_label": name, "bridge": name, "MTU": positive, "PIFs": full})
	var pools []string
	s.Must(&pools, "pool.get_all")
	s.sane("pool", s.record("pool.get_record", pools[0]), fields{
		"uuid": uuid, "master": is(s.m.Ref().String()), "default_SR": null, "suspend_image_SR": null, "crash_dump_SR": null,
		"redo_log_vdi": null, "ha_enabled": isFalse, "cpu_info.cpu_count": natural, "cpu_info.socket_count": natural,
		"cpu_info.vendor": name, "cpu_info.features_hvm": hexWords, "restrictions.restrict_pooling": is("false"),
		"telemetry_uuid": ref, "telemetry_next_collection": date, "telemetry_frequency": is("weekly"),
		"tls_verification_enabled": isTrue, "license_server.port": natural, "repositories": func(v any) bool { return !full(v) },
	})
}

// TestRecordsAreWhole: every field of the description is in the record, and no
// date or number came out as text that is not one.
func TestRecordsAreWhole(t *testing.T) {
	s := newStack(t)
	for _, class := range []string{"host", "host_cpu", "host_metrics", "pool", "PIF", "PIF_metrics", "network", "VM", "VM_metrics"} {
		var all map[string]map[string]any
		s.Must(&all, class+".get_all_records")
		if len(all) == 0 {
			t.Errorf("there is no %s", class)
		}
		info := api.FindClass(class)
		for _, r := range all {
			for _, f := range info.Fields {
				v, there := r[f.Name]
				if !there || !fits(f.Type, v) {
					t.Errorf("%s.%s (%s) is %#v", class, f.Name, f.Type.Text, v)
				}
			}
		}
	}
}

func fits(t *api.TypeInfo, v any) bool {
	switch t.Kind {
	case api.KindInt, api.KindFloat:
		_, ok := v.(float64)
		return ok
	case api.KindBool:
		_, ok := v.(bool)
		return ok
	case api.KindTime:
		return date(v)
	case api.KindRef:
		return ref(v) || null(v)
	case api.KindSet:
		_, ok := v.([]any)
		return ok
	case api.KindMap:
		_, ok := v.(map[string]any)
		return ok
	}
	_, ok := v.(string)
	return ok
}
