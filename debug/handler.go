package debug

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// A Handler serves the page. It answers GET and HEAD with HTML, or with JSON if the request has
// the query format=json or prefers application/json. It changes nothing, and checks no
// permission, so mount it where only operators reach it. It is safe for concurrent use. Use
// [NewHandler]; the zero Handler answers with 404.
type Handler struct {
	sources kinds

	mu      sync.Mutex // guards the fields below; held while a snapshot is made
	tenants namer      // its key does not change
	latest  *snapshot
	past    past
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns a handler for sources. The sources may be in use already, and it does not
// change them. The error wraps [ErrConfig] and names every mistake in the sources. There must be
// at least one. None may be nil or zero, no two of a kind may share a name, and each name must be
// valid UTF-8.
func NewHandler(sources ...Source) (*Handler, error) {
	by, err := byKind(sources)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return &Handler{sources: by, tenants: namer{key: key}}, nil
}

// ShowTenantNames makes the page show the names of tenants. Without it the page shows a hash of
// each name, with a secret that each Handler draws, so that the names cannot be found by trying.
func (h *Handler) ShowTenantNames() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tenants.plain, h.latest = true, nil
}

// A snapshot is the state at one moment. It does not change.
type snapshot struct {
	at      time.Time
	content *debugpb.Snapshot
	json    []byte
}

// freshFor is how long a snapshot serves all viewers, so that many of them cost no more than
// one.
const freshFor = 500 * time.Millisecond

// snapshot returns a snapshot that is at most freshFor old.
func (h *Handler) snapshot() (*snapshot, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if s := h.latest; s != nil && now.Sub(s.at) >= 0 && now.Sub(s.at) < freshFor {
		return s, nil
	}
	content := h.take(now)
	data, err := protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}.Marshal(content)
	if err != nil {
		return nil, err
	}
	h.latest = &snapshot{now, content, data}
	return h.latest, nil
}

// writeFor bounds the time for which a slow reader may hold a response.
const writeFor = 30 * time.Second

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Vary", "Accept")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "debug: got "+clean(r.Method)+", want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	if h == nil || h.tenants.key == nil {
		http.NotFound(w, r)
		return
	}
	switch format := r.URL.Query().Get("format"); {
	case format == "json", format == "" && prefersJSON(r.Header.Values("Accept")):
		s, err := h.snapshot()
		if err != nil {
			http.Error(w, "debug: the snapshot cannot be encoded", http.StatusInternalServerError)
			return
		}
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		write(w, r, "application/json; charset=utf-8", s.json)
	case format == "", format == "html":
		header.Set("Content-Security-Policy", policy)
		write(w, r, "text/html; charset=utf-8", page)
	default:
		http.Error(w, "debug: format: got "+strconv.Quote(clean(format))+", want html or json", http.StatusBadRequest)
	}
}

// write writes a body. All readers share it, so a slow one costs a goroutine and no memory.
func write(w http.ResponseWriter, r *http.Request, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return
	}
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(writeFor)) // not every server knows deadlines
	_, _ = w.Write(body)                             // an error means that the reader has left
	_ = c.Flush()
	_ = c.SetWriteDeadline(time.Time{}) // for the next request of the connection
}

// prefersJSON reports whether an Accept header prefers JSON to HTML.
func prefersJSON(accept []string) bool {
	quality := map[string]float64{}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, _ := strings.Cut(part, ";")
		q := 1.0
		if _, v, ok := strings.Cut(params, "q="); ok {
			if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
				q = f
			}
		}
		quality[strings.ToLower(strings.TrimSpace(kind))] = q
	}
	return quality["application/json"] > quality["text/html"]
}

// Register offers the content of a handler as weir.debug.v1.DebugService. It passes the gates of
// the server, so a full server answers it too, unless interceptors.WithoutExemptions is set. It
// checks no permission, so register it where only operators can call it.
//
//	grpcurl -plaintext localhost:50051 weir.debug.v1.DebugService/GetSnapshot
func Register(r grpc.ServiceRegistrar, h *Handler) {
	debugpb.RegisterDebugServiceServer(r, &service{handler: h})
}

type service struct {
	debugpb.UnimplementedDebugServiceServer

	handler *Handler
}

// GetSnapshot implements debugpb.DebugServiceServer.
func (s *service) GetSnapshot(context.Context, *debugpb.GetSnapshotRequest) (*debugpb.GetSnapshotResponse, error) {
	now, err := s.handler.snapshot()
	if err != nil {
		return nil, err
	}
	return &debugpb.GetSnapshotResponse{Snapshot: now.content}, nil
}
