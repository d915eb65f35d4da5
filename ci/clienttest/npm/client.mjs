// Drives a pool with the npm package xen-api and says each step it took:
//   node client.mjs URL USER PASSWORD
import { CancelToken } from 'promise-toolbox'
import { Readable } from 'node:stream'
import { Xapi } from 'xen-api'
import assert from 'node:assert/strict'

const [url, user, password] = process.argv.slice(2)
const patience = 20e3

// within rejects when a promise takes too long.
const within = (what, promise) =>
  Promise.race([
    promise,
    new Promise((resolve, reject) => setTimeout(reject, patience, new Error(`waited too long: ${what}`)).unref()),
  ])

// changed resolves with an object once its events satisfy a condition.
function changed(xapi, what, ref, condition) {
  return within(
    what,
    new Promise(resolve => {
      const look = () => {
        const object = xapi.getObjectByRef(ref, undefined)
        if (condition(object)) {
          xapi.objects.off('add', look).off('update', look).off('remove', look)
          resolve(object)
        }
      }
      xapi.objects.on('add', look).on('update', look).on('remove', look)
      look()
    })
  )
}

async function connect() {
  const xapi = new Xapi({ url, auth: { user, password }, allowUnauthorized: true, watchEvents: true })
  await within('connect', xapi.connect())
  await within('objects', xapi.objectsFetched)
  assert.ok(xapi.pool.$master.uuid, 'the pool has no master')
  console.log(`connected types=${new Set(Object.values(xapi.objects.all).map(o => o.$type)).size}`)
  return xapi
}

// virtualMachine makes, changes, clones and destroys VMs.
async function virtualMachine(xapi) {
  const memory = 256 * 1024 * 1024
  const vm = await xapi.call('VM.create', {
    name_label: 'made by xen-api', name_description: '', user_version: 1, is_a_template: false,
    affinity: 'OpaqueRef:NULL', memory_static_max: memory, memory_dynamic_max: memory, memory_dynamic_min: memory,
    memory_static_min: memory, VCPUs_params: {}, VCPUs_max: 1, VCPUs_at_startup: 1, actions_after_shutdown: 'destroy',
    actions_after_reboot: 'restart', actions_after_crash: 'restart', PV_bootloader: '', PV_kernel: '', PV_ramdisk: '',
    PV_args: '', PV_bootloader_args: '', PV_legacy_args: '', HVM_boot_policy: 'BIOS order', HVM_boot_params: {},
    platform: {}, PCI_bus: '', other_config: {}, recommendations: '',
  })
  await changed(xapi, 'the new VM', vm, o => o?.name_label === 'made by xen-api')
  await xapi.setField('VM', vm, 'name_label', 'renamed')
  await changed(xapi, 'the new name', vm, o => o?.name_label === 'renamed')
  assert.equal((await xapi.barrier(vm)).name_label, 'renamed')
  console.log('watched a change')

  const clone = await within('Async.VM.clone', xapi.callAsync(CancelToken.none, 'VM.clone', vm, 'copy'))
  assert.match(clone, /^OpaqueRef:/)
  assert.equal(await xapi.getField('VM', clone, 'name_label'), 'copy')
  await assert.rejects(within('a failing task', xapi.callAsync(CancelToken.none, 'VM.clean_shutdown', vm)), {
    code: 'VM_BAD_POWER_STATE',
  })
  console.log('called async')

  for (const ref of [clone, vm]) {
    await xapi.call('VM.destroy', ref)
    await changed(xapi, 'the end of a VM', ref, o => o === undefined)
  }
  await assert.rejects(xapi.call('VM.get_record', vm), { code: 'HANDLE_INVALID' })
  console.log('destroyed')
}

// transfers uses streams, with a known length and without, each with a task.
async function transfers(xapi) {
  const size = 300000
  for (const length of [size, undefined]) {
    const body = Readable.from([Buffer.alloc(size)])
    body.length = length
    const result = await within('upload', xapi.putResource(CancelToken.none, body, '/import', { task: true }))
    assert.equal(result, `${size}`)
  }
  console.log('uploaded')
  const download = await within('download', xapi.getResource(CancelToken.none, '/export', { task: true }))
  assert.equal((await download.body.text()).length, size)
  await within("the download's task", download.task)
  console.log('downloaded')
}

const work = process.argv.includes('transfers') ? transfers : virtualMachine

connect()
  .then(async xapi => {
    await work(xapi)
    await xapi.disconnect()
    console.log('disconnected')
  })
  .then(
    () => process.exit(0),
    error => {
      console.error(error)
      process.exit(1)
    }
  )
