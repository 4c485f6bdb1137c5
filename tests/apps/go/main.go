// A Go program: its own system calls, and, where it is linked statically, its own resolver.
//
//	app serve ADDR NAME     answers HTTP with the name and the client's address
//	app get URL             prints the answer's body
//	app dial ADDR…          prints what connections come to
//	app resolve NAME        prints the addresses
//	app txt NAME            prints the TXT records
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	case len(args) == 2 && args[0] == "get":
		return get(ctx, args[1])
	case len(args) >= 2 && args[0] == "dial":
		for _, address := range args[1:] {
			fmt.Println(address, dial(ctx, address))
		}
		return nil
	case len(args) == 2 && args[0] == "resolve":
		addresses, err := net.DefaultResolver.LookupHost(ctx, args[1])
		sort.Strings(addresses)
		fmt.Println(strings.Join(addresses, " "))
		return err
	case len(args) == 2 && args[0] == "txt":
		records, err := net.DefaultResolver.LookupTXT(ctx, args[1])
		fmt.Println(strings.Join(records, " "))
		return err
	}
	return fmt.Errorf("app serve ADDR NAME | get URL | dial ADDR… | resolve NAME | txt NAME")
}

func dial(ctx context.Context, address string) string {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	var code syscall.Errno
	if errors.As(err, &code) {
		return code.Error()
	}
	if err != nil {
		return err.Error()
	}
	defer connection.Close()
	local, _, _ := net.SplitHostPort(connection.LocalAddr().String())
	return local + " " + connection.RemoteAddr().String()
}

func serve(address, name string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("listening %s\n", listener.Addr())
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local := r.Context().Value(http.LocalAddrContextKey)
		fmt.Printf("request %s\n", r.RemoteAddr)
		fmt.Fprintf(w, "{\"name\":%q,\"peer\":%q,\"local\":%q}\n", name, r.RemoteAddr, local)
	}))
}

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
