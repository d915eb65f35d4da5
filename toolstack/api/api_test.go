package api

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"
)

func TestFindMessage(t *testing.T) {
	for i := range messages {
		m := &messages[i]
		if m.ID != i || FindMessage(m.Method) != m {
			t.Fatalf("%s is not found under its name", m.Method)
		}
	}
	if m := FindMessage("VM_metrics_get_all_records"); m == nil || m.Method != "VM_metrics.get_all_records" {
		t.Errorf("alias: %v", m)
	}
	for _, s := range []string{"", "VM", "VM.", "VM.start ", "vm.start", "VM.metrics_get_all", "VM..start", "ZZ.top"} {
		if m := FindMessage(s); m != nil {
			t.Errorf("%q is %s", s, m.Method)
		}
	}
}

// A record decoded from its own encoding is the same record, for every class
// and every field.
func TestRecordsSurviveTheirEncoding(t *testing.T) {
	for i := range classes {
		c := &classes[i]
		if c.New == nil {
			continue
		}
		r := c.New()
		text := AppendRecord(nil, JSON, r)
		v, err := ParseJSON(text)
		if err != nil {
			t.Fatalf("%s: %v in %s", c.Name, err, text)
		}
		again := c.New()
		if err := FillRecord(again, &v, func(*FieldInfo) bool { return true }); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if got := AppendRecord(nil, JSON, again); string(got) != string(text) {
			t.Errorf("%s: %s became %s", c.Name, text, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	vm := NewVM()
	if vm.PowerState != VMPowerStateHalted || vm.HVMShadowMultiplier != 1 || !vm.HasVendorDevice || vm.GenerationID != "0:0" ||
		vm.ActionsAfterCrash != OnCrashBehaviourDestroy {
		t.Errorf("VM: %s", AppendRecord(nil, JSON, vm))
	}
	if n := NewNetwork(); n.MTU != 1500 || n.DefaultLockingMode != NetworkDefaultLockingModeUnlocked {
		t.Errorf("network: %s", AppendRecord(nil, JSON, n))
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := NewVM()
	a.OtherConfig, a.Tags = map[string]string{"k": "v"}, []string{"t"}
	b := a.Clone()
	b.OtherConfig["k"], b.Tags[0] = "w", "u"
	if a.OtherConfig["k"] != "v" || a.Tags[0] != "t" {
		t.Error("the copy shares memory with the original")
	}
}

func TestScalars(t *testing.T) {
	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, c := range []struct{ got, want string }{
		{string(AppendInt(nil, XML, -5)), "<value>-5</value>"},
		{string(AppendFloat(nil, XML, 0.1)), "<value><double>0.1</double></value>"},
		{string(AppendFloat(nil, JSON, math.NaN())), "0"},
		{string(AppendFloat(nil, JSON, 1)), "1"},
		{string(AppendTime(nil, JSON, time.Time{})), `"19700101T00:00:00Z"`},
		{string(AppendTime(nil, XML, when)), "<value><dateTime.iso8601>20260203T04:05:06Z</dateTime.iso8601></value>"},
		{string(AppendRef(nil, JSON, "")), `"OpaqueRef:NULL"`},
		{string(AppendString(nil, XML, "a\x01\x1bb\r<")), "<value>ab&#13;&lt;</value>"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	for in, want := range map[string]time.Time{
		"20260203T04:05:06Z": when, "2026-02-03T04:05:06Z": when, "20260203T04:05:06": when, "2026-02-03T05:05:06+01:00": when,
		"19700101T00:00:00Z": {},
	} {
		if got, err := decodeTime(&Value{Kind: StringValue, Text: in}); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}

func TestRefs(t *testing.T) {
	var null VMRef
	if !null.IsNull() || null.String() != NullRef || ParseRef(NullRef) != "" || NewRef[VM]().IsNull() {
		t.Error("null references")
	}
	if a, b := NewUUID(), NewUUID(); a == b || len(a) != 36 || a[14] != '4' {
		t.Errorf("uuids %s, %s", a, b)
	}
}

func TestErrorsMatchByCode(t *testing.T) {
	err := error(ErrHandleInvalid("VM", "OpaqueRef:x"))
	if !errors.Is(err, &Error{Code: CodeHandleInvalid}) || errors.Is(err, &Error{Code: CodeUUIDInvalid}) {
		t.Error("codes do not match")
	}
	if err.Error() != "HANDLE_INVALID [VM, OpaqueRef:x]" {
		t.Error(err)
	}
}

func TestEveryEnumDefaultIsAValue(t *testing.T) {
	for i := range classes {
		c := &classes[i]
		for j := range c.Fields {
			f := &c.Fields[j]
			if f.Type.Kind != KindEnum {
				continue
			}
			v, err := ParseJSON(c.New().AppendField(nil, JSON, j))
			if err != nil || !slices.Contains(f.Type.Enum().Values, v.Text) {
				t.Errorf("%s.%s is %q by default", c.Name, f.Name, v.Text)
			}
		}
	}
}

// progress counts what it is told.
type progress struct{ told []float64 }

func (p *progress) Ref() TaskRef   { return "" }
func (p *progress) Set(at float64) { p.told = append(p.told, at) }

func TestSparingly(t *testing.T) {
	var p progress
	tell := Sparingly(&p)
	for _, at := range []float64{0, 0.009, math.NaN(), 0.01, 0.015, 0.5, 0.5, 0.3, 0.505, -1, 1, 1} {
		tell(at)
	}
	if want := []float64{0.01, 0.5, 1}; !slices.Equal(p.told, want) {
		t.Errorf("told %v, want %v", p.told, want)
	}
	p.told = nil
	tell = Sparingly(&p)
	for n := range 1 << 16 {
		tell(float64(n+1) / (1 << 16))
	}
	if n := len(p.told); n < 90 || n > 100 {
		t.Errorf("%d of 65536 pieces were told", n)
	}
}
