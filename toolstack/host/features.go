package host

import (
	"fmt"
	"strings"
)

// featureWords names the bits of the CPUID registers that this API shows as words
// of a feature set, by the kernel's names, from bit 0; "-" has none. The order of
// the words is the reference implementation's.
var featureWords = []string{
	// leaf 1, EDX and ECX
	`fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`,
	`pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 x2apic
	 movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor`,
	// leaf 0x80000001, EDX and ECX
	`- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow`,
	`lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp fma4 tce -
	 nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx - -`,
	// leaf 13.1, EAX
	`xsaveopt xsavec xgetbv1 xsaves`,
	// leaf 7.0, EBX and ECX
	`fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx smap
	 avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`,
	`- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme avx512_vpopcntdq -
	 la57 - - - - - rdpid - - cldemote - movdiri movdir64b`,
	// leaves 0x80000007 EDX and 0x80000008 EBX
	`- - - - - - - - nonstop_tsc`,
	`clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp`,
	// leaf 7.0, EDX
	`- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - pconfig arch_lbr -
	 - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities`,
}

// featureSet writes a processor's flags as hexadecimal words, "178bfbff-…".
func featureSet(flags []string) string {
	has := map[string]bool{}
	for _, f := range flags {
		has[f] = true
	}
	words := make([]string, len(featureWords))
	for i, names := range featureWords {
		var word uint32
		for bit, name := range strings.Fields(names) {
			if has[name] {
				word |= 1 << bit
			}
		}
		words[i] = fmt.Sprintf("%08x", word)
	}
	return strings.Join(words, "-")
}
