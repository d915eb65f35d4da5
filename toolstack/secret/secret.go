// Package secret serves the one message of class secret that is no plain record
// operation: introduce, by which a pool takes over a secret under the uuid it has
// elsewhere. Who may read a value is the description's matter: pool-operators and
// above; others see other_config only, and no event tells of secrets.
package secret

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Register binds the behaviour.
func Register(r *api.Registry, d *db.DB) {
	api.HandleSecretIntroduce(r, func(c *api.Call, uuid, value string, otherConfig map[string]string) (api.SecretRef, error) {
		ref := api.NewRef[api.Secret]()
		return ref, d.Update(c, func(tx *db.Tx) error {
			if uuid == "" || tx.RefByUUID(api.ClassOf[api.Secret](), uuid) != "" {
				return api.ErrUUIDInvalid("secret", uuid)
			}
			db.InsertAs(tx, ref, &api.Secret{UUID: uuid, Value: value, OtherConfig: otherConfig})
			return nil
		})
	})
}
