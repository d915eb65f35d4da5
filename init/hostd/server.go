package hostd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"cairn/init/hostd/client"
)

// Bounds of the API. Local clients send little and read quickly; one that does
// not must not hold a connection for ever.
const (
	apiVersion    = 1
	maxBody       = 1 << 20
	readTimeout   = 10 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 5 * time.Minute
	shutdownGrace = 2 * time.Second
)

// newServer routes each noun to its handler file. The socket's permissions say
// who may call: root and group cairn.
func (h *Host) newServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", h.getVersion)
	mux.HandleFunc("GET /v1/inventory", h.getInventory)
	mux.HandleFunc("GET /v1/config", h.getConfig)
	mux.HandleFunc("PUT /v1/config", h.putConfig)
	mux.HandleFunc("GET /v1/network", h.getNetwork)
	mux.HandleFunc("GET /v1/bridges", h.getBridges)
	mux.HandleFunc("PUT /v1/bridges/{name}", h.putBridge)
	mux.HandleFunc("DELETE /v1/bridges/{name}", h.deleteBridge)
	mux.HandleFunc("GET /v1/ports", h.getPorts)
	mux.HandleFunc("PUT /v1/ports/{name}", h.putPort)
	mux.HandleFunc("DELETE /v1/ports/{name}", h.deletePort)
	mux.HandleFunc("POST /v1/kvm", h.postKVM)
	mux.HandleFunc("POST /v1/power", h.postPower)
	mux.HandleFunc("GET /v1/logs", h.getLogs)
	mux.HandleFunc("GET /v1/guest-logs", h.getGuestLogs)
	mux.HandleFunc("DELETE /v1/guest-logs/{uuid}", h.deleteGuestLogs)
	mux.HandleFunc("GET /v1/kernel-log", h.getKernelLog)
	mux.HandleFunc("DELETE /v1/kernel-log", h.deleteKernelLog)
	mux.HandleFunc("GET /v1/out-of-memory", h.getOutOfMemory)
	mux.HandleFunc("GET /v1/time", h.getTime)
	mux.HandleFunc("GET /v1/nvram", h.getNVRAM)
	mux.HandleFunc("PUT /v1/nvram/{uuid}", h.putNVRAM)
	mux.HandleFunc("POST /v1/nvram/{uuid}/keep", h.keepNVRAM)
	mux.HandleFunc("DELETE /v1/nvram/{uuid}", h.deleteNVRAM)
	h.routeStorage(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, r, &client.Error{Status: http.StatusNotFound, Code: client.CodeNotFound, Message: "no such verb: " + r.Method + " " + r.URL.Path})
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
	}
}

// routeStorage are the verbs on repositories and volumes, and on jobs, which the
// longer of them are.
func (h *Host) routeStorage(mux *http.ServeMux) {
	const sr = " /v1/repositories/{sr}"
	const volume = sr + "/volumes/{name}"
	mux.HandleFunc("POST /v1/probe", h.postProbe)
	mux.HandleFunc("GET"+sr, h.getRepository)
	mux.HandleFunc("POST"+sr+"/format", h.postFormat)
	mux.HandleFunc("POST"+sr+"/erase", h.postErase)
	mux.HandleFunc("POST"+sr+"/attach", h.postAttach)
	mux.HandleFunc("POST"+sr+"/detach", h.postDetach)
	mux.HandleFunc("GET"+sr+"/volumes", h.getVolumes)
	mux.HandleFunc("GET"+volume, h.getVolume)
	mux.HandleFunc("PUT"+volume, h.putVolume)
	mux.HandleFunc("DELETE"+volume, h.deleteVolume)
	mux.HandleFunc("POST"+volume+"/resize", h.postResize)
	mux.HandleFunc("POST"+volume+"/activate", h.postActivate)
	mux.HandleFunc("POST"+volume+"/deactivate", h.postDeactivate)
	mux.HandleFunc("POST"+volume+"/rebase", h.postRebase)
	mux.HandleFunc("PUT"+volume+"/note", h.putNote)
	mux.HandleFunc("POST"+volume+"/commit", h.postCommit)
	mux.HandleFunc("POST"+volume+"/check", h.postCheck)
	mux.HandleFunc("POST"+volume+"/copy", h.postCopy)
	mux.HandleFunc("GET"+volume+"/allocation", h.getAllocation)
	mux.HandleFunc("GET"+sr+"/logs", h.getChangeLogs)
	mux.HandleFunc("GET"+sr+"/logs/{name}", h.getChangeLog)
	mux.HandleFunc("PUT"+sr+"/logs/{name}", h.putChangeLog)
	mux.HandleFunc("DELETE"+sr+"/logs/{name}", h.deleteChangeLog)
	mux.HandleFunc("POST"+volume+"/export", h.postExport)
	mux.HandleFunc("DELETE /v1/exports/{id}", h.deleteExport)
	mux.HandleFunc("GET /v1/jobs/{id}", h.getJob)
	mux.HandleFunc("DELETE /v1/jobs/{id}", h.deleteJob)
}

// shutdown lets requests in flight end; the next hostd takes the socket over.
func shutdown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}

// answer sends v as JSON.
func (h *Host) answer(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(body); err != nil {
		h.Log.Debug("answer-not-sent", "err", err)
	}
}

// failure is what a client is told of an error. Anything but a client.Error is an
// internal one.
func failure(err error) *client.Error {
	var e *client.Error
	if !errors.As(err, &e) {
		e = &client.Error{Status: http.StatusInternalServerError, Code: client.CodeInternal, Message: err.Error()}
	}
	return e
}

// refuse answers with an error and logs one line.
func (h *Host) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := failure(err)
	h.Log.Warn("request-refused", "verb", r.Method+" "+r.URL.Path, "code", e.Code, "err", e.Message)
	body, jerr := json.Marshal(e)
	if jerr != nil {
		body = []byte(`{"code":"INTERNAL"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	if _, werr := w.Write(body); werr != nil {
		h.Log.Debug("answer-not-sent", "err", werr)
	}
}

func badRequest(msg string) *client.Error {
	return &client.Error{Status: http.StatusBadRequest, Code: client.CodeBadRequest, Message: msg}
}

// body reads a request's body, bounded.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return bodyOf(w, r, maxBody)
}

func bodyOf(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &client.Error{Status: http.StatusRequestEntityTooLarge, Code: client.CodeTooLarge, Message: fmt.Sprintf("body is larger than %d bytes", limit)}
	}
	if err != nil {
		return nil, badRequest("body: " + err.Error())
	}
	return b, nil
}
