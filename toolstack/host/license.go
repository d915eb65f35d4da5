package host

import "strings"

// Edition is the one there is, under the name clients know for what is free of
// charge; Editions are all that may be applied.
const Edition = "free"

// Editions may be applied to a host.
var Editions = []string{Edition}

// NoExpiry is when a licence that does not expire does so, for clients that
// insist on a date.
const NoExpiry = "20991231T23:59:59Z"

// features are the parts of the product that clients ask licences for. They show
// as available unless the answer is "true": a key that is missing counts as a
// restriction.
const features = `ad batch_hotfix_apply cbt certificate_verification checkpoint cifs connection corosync cpu_masking
	dmc dr email_alerting export_resource_data gpu guest_agent_auto_update guest_ip_setting health_check
	historical_performance hotfix_apply igmp_snooping integrated_gpu_passthrough intellicache internal_repo_access
	live_patching management_on_vlan nested_virt network_sriov pci_device_for_auto_update pool_attached_storage
	pool_secret_rotation pool_size pooling qos rbac read_caching rpu set_vcpus_number_live storage_xen_motion
	updates usb_passthrough vgpu vif_locking vlan vm_groups vm_memory_introspection vmpr vmss vss vtpm
	web_selfservice web_selfservice_manager wlb xcm xen_motion zstd_export`

// absent are features of others' products that have no counterpart here.
const absent = "equalogic lab marathon netapp pvs_proxy stage storagelink storagelink_site_recovery vswitch_controller ws_proxy"

// Restrictions are the "restrict_" keys of a host's licence, and of a pool.
func Restrictions() map[string]string {
	r := map[string]string{"enable_xha": "true", "platform_filter": "false", "regular_nag_dialog": "false"}
	for _, f := range strings.Fields(features) {
		r["restrict_"+f] = "false"
	}
	for _, f := range strings.Fields(absent) {
		r["restrict_"+f] = "true"
	}
	return r
}

// LicenseParams are a host's.
func LicenseParams() map[string]string {
	p := Restrictions()
	p["expiry"], p["grace"], p["license_type"], p["sku_type"] = NoExpiry, "no", "", Edition
	p["sku_marketing_name"], p["name"], p["company"], p["productcode"], p["serialnumber"] = brand, "", "", "", ""
	p["sockets"], p["version"] = "1", ""
	return p
}
