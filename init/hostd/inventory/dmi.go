package inventory

import "cairn/init/hostd/client"

// Product reads what the firmware calls the machine.
func (s Source) Product() client.Product {
	dir := s.Sys + "/class/dmi/id"
	return client.Product{
		Manufacturer: text(dir, "sys_vendor"),
		Name:         text(dir, "product_name"),
		Serial:       text(dir, "product_serial"),
		UUID:         text(dir, "product_uuid"),
	}
}

// BIOS reads what the firmware calls itself.
func (s Source) BIOS() client.BIOS {
	dir := s.Sys + "/class/dmi/id"
	return client.BIOS{
		Vendor:  text(dir, "bios_vendor"),
		Version: text(dir, "bios_version"),
		Date:    text(dir, "bios_date"),
	}
}
